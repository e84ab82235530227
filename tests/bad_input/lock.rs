//! The lock beside the file: one engine at a time, and nobody is kept out by a lock that is let go.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
};

use sessile::OpenError;
use sessile_tests::{Place, eventually};

fn lock_file(place: &Place) -> File {
    let path = place.directory().join("sessions.db.lock");
    File::options().create(true).truncate(false).write(true).open(path).unwrap()
}

/// Returns how often this process has the lock file open.
fn times_open(place: &Place) -> usize {
    let path = place.directory().join("sessions.db.lock").canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == path)).count()
}

#[tokio::test]
async fn a_lock_that_a_child_of_a_fork_holds_for_a_moment_is_waited_for() {
    let place = Place::new();
    let held = lock_file(&place);
    held.try_lock().unwrap();
    let lets_go = async {
        eventually("the engine wants it", async || times_open(&place) > 1).await;
        drop(held);
    };
    let (engine, ()) = tokio::join!(place.builder().open(), lets_go);
    engine.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_lock_that_stays_held_is_a_file_in_use_and_the_database_is_not_even_made() {
    let place = Place::new();
    let held = lock_file(&place);
    held.try_lock().unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(!place.path().exists(), "it was touched before it was locked");
}

#[tokio::test]
async fn the_lock_file_stays_and_is_used_again() {
    let place = Place::new();
    let inode = || fs::metadata(place.directory().join("sessions.db.lock")).unwrap().ino();
    place.builder().open().await.unwrap().shutdown().await.unwrap();
    let first = inode();
    place.builder().open().await.unwrap().shutdown().await.unwrap();
    // Were it unlinked, an engine could lock the old file and another the new one.
    assert_eq!(inode(), first);
}

#[tokio::test]
async fn a_lock_file_that_cannot_be_made_says_so() {
    let place = Place::new();
    fs::create_dir(place.directory().join("sessions.db.lock")).unwrap();
    let error = place.refusal().await;
    assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
    assert!(!place.path().exists());
}
