//! The layer itself, in SQLite's terms. The one place of the repository with `unsafe` code.
//!
//! What it rests on (<https://sqlite.org/c3ref/vfs.html>, <https://sqlite.org/c3ref/io_methods.html>):
//!
//! 1. SQLite gives `xOpen` `szOsFile` bytes, aligned to 8, which do not move until `xClose`. Ours are a
//!    [`ShimFile`], and behind it what the inner VFS asks for.
//! 2. For a file that nobody watches, the inner VFS gets all of these bytes and puts its own methods there: SQLite then
//!    calls it directly.
//! 3. A file's methods are called by one thread at a time, with the pointer that `xOpen` got.
//! 4. All that is not about files (time, randomness, sleep …) is the inner VFS's own functions, copied: SQLite's unix
//!    VFS does not look at the `sqlite3_vfs` given to them.
#![allow(unsafe_code, reason = "SQLite's interface is one of C")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "SQLite's lengths and offsets are signed and never negative"
)]

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    mem::size_of,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
    sync::{Arc, OnceLock},
};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use super::{Call, CallKind, FileKind, Verdict, Watcher, watcher_of};

/// Makes the layer the default VFS of the process, once.
pub(super) fn register() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: SQLite's default VFS is never freed, and neither is ours. It is a copy of plain data; that its
        // functions may be called with ours is point 4 above, and those that may not are replaced.
        let code = unsafe {
            let inner = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!inner.is_null(), "SQLite has a default VFS");
            let mut vfs = *inner;
            vfs.szOsFile += size_of::<ShimFile>() as c_int;
            vfs.pNext = ptr::null_mut();
            vfs.zName = c"sessile-tests".as_ptr();
            vfs.pAppData = inner.cast();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            vfs.xAccess = Some(access);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1)
        };
        assert_eq!(code, ffi::SQLITE_OK, "the layer is registered");
    });
}

/// A watched file. The inner VFS's file lies behind it.
#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    /// From `Box::into_raw`; ours alone.
    state: *mut State,
}

const _: () = assert!(size_of::<ShimFile>().is_multiple_of(8), "what lies behind is aligned");

struct State {
    watcher: Arc<dyn Watcher>,
    kind: FileKind,
    path: PathBuf,
}

impl State {
    fn call(&self, kind: CallKind) -> Call<'_> {
        Call { kind, file: self.kind, path: &self.path, offset: 0, length: 0, bytes: &[], flags: 0 }
    }

    fn shared(&self, kind: CallKind) -> Call<'_> {
        Call { file: FileKind::SharedMemory, ..self.call(kind) }
    }
}

/// Makes a call as the watcher decides. `make` does (part of) it.
fn mediate(watcher: &dyn Watcher, call: Call<'_>, mut make: impl FnMut(&Call<'_>) -> c_int) -> c_int {
    let mut perform = |call: &Call<'_>| {
        let code = make(call);
        watcher.after(call, code);
        code
    };
    match watcher.before(&call) {
        Verdict::Pass => perform(&call),
        Verdict::Fail(code) => code,
        Verdict::FailAfter(code) => {
            perform(&call);
            code
        }
        Verdict::Short(bytes, code) => {
            let length = bytes.min(call.length);
            if length > 0 {
                perform(&Call { length, bytes: &call.bytes[..length.min(call.bytes.len())], ..call });
            }
            code
        }
        Verdict::Pretend => ffi::SQLITE_OK,
    }
}

unsafe fn inner_vfs<'a>(vfs: *mut sqlite3_vfs) -> &'a mut sqlite3_vfs {
    // SAFETY: `vfs` is the one registered above, whose `pAppData` is the inner VFS, which lives for ever.
    unsafe { &mut *(*vfs).pAppData.cast::<sqlite3_vfs>() }
}

/// The path of a C string of SQLite's, if there is one: files for sorting have none.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    // SAFETY: a string that SQLite gives lives as long as the call.
    (!name.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

fn kind_of_flags(flags: c_int) -> FileKind {
    match flags {
        _ if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 => FileKind::Database,
        _ if flags & ffi::SQLITE_OPEN_WAL != 0 => FileKind::Log,
        _ if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 => FileKind::Journal,
        _ => FileKind::Other,
    }
}

fn kind_of_name(path: &Path) -> FileKind {
    let name = path.as_os_str().as_bytes();
    match name {
        _ if name.ends_with(b"-wal") => FileKind::Log,
        _ if name.ends_with(b"-journal") => FileKind::Journal,
        _ if name.ends_with(b"-shm") => FileKind::SharedMemory,
        _ if name.ends_with(b".db") => FileKind::Database,
        _ => FileKind::Other,
    }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: point 1 and 2. Either the inner VFS gets the memory as it is, or `ShimFile` is written at its beginning
    // and the inner VFS gets what is behind, which is as long as it asked for and aligned to 8: two pointers are 16 bytes. `pMethods` is set null
    // first, so that SQLite does not close what was not opened.
    unsafe {
        let inner = inner_vfs(vfs);
        let inner_open = inner.xOpen.expect("every VFS opens");
        let Some((path, watcher)) = path_of(name).and_then(|path| Some((path, watcher_of(path)?))) else {
            return inner_open(inner, name, file, flags, flags_out);
        };
        (*file).pMethods = ptr::null();
        let state = State { watcher, kind: kind_of_flags(flags), path: path.to_owned() };
        let code = mediate(&*state.watcher, Call { flags, ..state.call(CallKind::Open) }, |_| {
            inner_open(inner, name, inner_file(file), flags, flags_out)
        });
        let inner_methods = (*inner_file(file)).pMethods;
        if code == ffi::SQLITE_OK {
            assert!(!inner_methods.is_null(), "an opening cannot be pretended");
            (*file.cast::<ShimFile>()).state = Box::into_raw(Box::new(state));
            (*file).pMethods = &raw const METHODS;
        } else if !inner_methods.is_null()
            && let Some(close) = (*inner_methods).xClose
        {
            close(inner_file(file));
        }
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: the inner VFS's own function, with its own VFS and SQLite's arguments.
    let make = |_: &Call<'_>| unsafe {
        let inner = inner_vfs(vfs);
        inner.xDelete.expect("every VFS deletes")(inner, name, sync_directory)
    };
    // SAFETY: SQLite's string.
    unsafe { mediate_path(name, CallKind::Delete, sync_directory, make) }
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, answer: *mut c_int) -> c_int {
    // SAFETY: the inner VFS's own function, with its own VFS and SQLite's arguments.
    let make = |_: &Call<'_>| unsafe {
        let inner = inner_vfs(vfs);
        inner.xAccess.expect("every VFS tells")(inner, name, flags, answer)
    };
    // SAFETY: SQLite's string.
    unsafe { mediate_path(name, CallKind::Access, flags, make) }
}

unsafe fn mediate_path(
    name: *const c_char,
    kind: CallKind,
    flags: c_int,
    mut make: impl FnMut(&Call<'_>) -> c_int,
) -> c_int {
    // SAFETY: SQLite's string.
    let path = unsafe { path_of(name) }.unwrap_or(Path::new(""));
    let call = Call { kind, file: kind_of_name(path), path, offset: 0, length: 0, bytes: &[], flags };
    match watcher_of(path) {
        Some(watcher) => mediate(&*watcher, call, make),
        None => make(&call),
    }
}

/// The inner VFS's file behind ours.
unsafe fn inner_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the memory is longer than a `ShimFile` (point 1).
    unsafe { file.cast::<ShimFile>().add(1).cast() }
}

/// Calls a method of the inner file and evaluates to its answer.
macro_rules! inner {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = inner_file($file);
        (*(*file).pMethods).$method.expect("the inner VFS has it")(file $(, $argument)*)
    }};
}

/// A method of a watched file that a watcher decides on. SAFETY: point 1 and 3: `file` is one that `open` made, its state
/// lives until `close`, and the inner file is open.
macro_rules! mediated {
    ($file:expr, |$state:ident| $call:expr, |$made:pat_param| $make:expr) => {
        unsafe {
            let $state = &*(*$file.cast::<ShimFile>()).state;
            mediate(&*$state.watcher, $call, |$made| $make)
        }
    };
}

/// A method of a watched file that nobody needs to watch. SAFETY: as for `mediated`.
macro_rules! passed_on {
    ($(fn $name:ident: $method:ident($($argument:ident: $kind:ty),*) $(-> $answer:ty)?;)*) => {
        $(unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) $(-> $answer)? {
            unsafe { inner!(file, $method $(, $argument)*) }
        })*
    };
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as for `mediated`; the state was made by `Box::into_raw`, and SQLite closes a file once.
    unsafe {
        let state = Box::from_raw((*file.cast::<ShimFile>()).state);
        let call = state.call(CallKind::Close);
        state.watcher.before(&call);
        let code = inner!(file, xClose);
        state.watcher.after(&call, code);
        code
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, length: c_int, offset: sqlite3_int64) -> c_int {
    let asked = length as usize;
    mediated!(file, |state| Call { offset: offset as u64, length: asked, ..state.call(CallKind::Read) }, |call| {
        // Of a short read SQLite demands that the rest be zero.
        ptr::write_bytes(to.cast::<u8>(), 0, asked);
        inner!(file, xRead, to, call.length as c_int, offset)
    })
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives `length` bytes to write.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length as usize) };
    mediated!(
        file,
        |state| Call { offset: offset as u64, length: bytes.len(), bytes, ..state.call(CallKind::Write) },
        |call| inner!(file, xWrite, call.bytes.as_ptr().cast(), call.length as c_int, offset)
    )
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    mediated!(file, |state| Call { offset: size as u64, ..state.call(CallKind::Truncate) }, |_| inner!(
        file, xTruncate, size
    ))
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    mediated!(file, |state| Call { flags, ..state.call(CallKind::Sync) }, |_| inner!(file, xSync, flags))
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    mediated!(file, |state| state.call(CallKind::FileSize), |_| inner!(file, xFileSize, size))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    mediated!(file, |state| Call { flags: level, ..state.call(CallKind::Lock) }, |_| inner!(file, xLock, level))
}

unsafe extern "C" fn shared_map(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    mediated!(file, |state| Call { flags: extend, ..state.shared(CallKind::SharedMap) }, |_| inner!(
        file, xShmMap, page, size, extend, mapped
    ))
}

unsafe extern "C" fn shared_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // A lock that is given back always is.
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        // SAFETY: as for `mediated`.
        return unsafe { inner!(file, xShmLock, offset, count, flags) };
    }
    mediated!(
        file,
        |state| Call { offset: offset as u64, length: count as usize, flags, ..state.shared(CallKind::SharedLock) },
        |_| inner!(file, xShmLock, offset, count, flags)
    )
}

passed_on! {
    fn unlock: xUnlock(level: c_int) -> c_int;
    fn check_reserved_lock: xCheckReservedLock(answer: *mut c_int) -> c_int;
    fn file_control: xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    fn sector_size: xSectorSize() -> c_int;
    fn device_characteristics: xDeviceCharacteristics() -> c_int;
    fn shared_barrier: xShmBarrier();
    fn shared_unmap: xShmUnmap(delete: c_int) -> c_int;
}

/// Version 2: without `xFetch`, so that every read of a page comes by here.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shared_map),
    xShmLock: Some(shared_lock),
    xShmBarrier: Some(shared_barrier),
    xShmUnmap: Some(shared_unmap),
    xFetch: None,
    xUnfetch: None,
};
