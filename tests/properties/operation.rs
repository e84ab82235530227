//! What may be asked of an engine, as values that proptest makes and shrinks.

use proptest::{collection::vec, option, prelude::*, strategy::Union};

/// Ids that applications choose; what looks alike, begins alike or is special to SQL stands side by side.
pub(crate) const IDS: [&str; 6] = ["a", "A", "a%_", "ab", "会话-🦀", "'; --"];
/// Owners.
pub(crate) const USERS: [&str; 4] = ["ada", "bob", "", "a\0\"'é"];
/// Names and values of metadata.
pub(crate) const WORDS: [&str; 7] = ["k", "", "a.b[0]", "\"\\/", "tab\tline\n", "nul\0l", "é🦀"];

/// The data of one operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Number(i64),
    Text(String),
    Raw(Vec<u8>),
    /// So many bytes, which may be too many.
    Long(usize),
}

/// A setter of a change.
#[derive(Debug, Clone)]
pub(crate) enum Set {
    Data(Data),
    User(usize),
    ClearUser,
    Metadata(usize, usize),
    RemoveMetadata(usize),
    IdleSeconds(u64),
    ClearIdle,
    EndsInSeconds(i64),
    ClearEnd,
    KeepIdle,
    /// With a version that was seen: this many states ago.
    IfVersion(usize),
}

/// Conditions of a filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    pub(crate) user: Option<usize>,
    pub(crate) prefix: Option<usize>,
    /// The number of a name, and whether its serial is meant or all others.
    pub(crate) serial_of: Option<usize>,
    pub(crate) except: Vec<usize>,
    /// Seconds before now: from, until.
    pub(crate) created: Option<(i64, i64)>,
    pub(crate) active: Option<(i64, i64)>,
    pub(crate) metadata: Vec<(usize, usize)>,
}

/// An operation. Sessions go by the number of a name: those of [`IDS`] and, after them, every id that was generated.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Create { name: Option<usize>, sets: Vec<Set>, or_existing: bool },
    Get { name: usize },
    Touch { name: usize },
    TouchWith { name: usize, synced: bool },
    Save { name: usize, data: Data, synced: bool },
    SaveIf { name: usize, version: usize, data: Data },
    Apply { name: usize, sets: Vec<Set> },
    Update { name: usize, add: i64 },
    TryUpdate { name: usize, add: i64, refuses: bool },
    PanickingUpdate { name: usize },
    Rotate { name: usize, sets: Vec<Set> },
    Delete { name: usize },
    List { conditions: Conditions, order: u8, limit: usize },
    Count { conditions: Conditions },
    DeleteWhere { conditions: Conditions },
    Sweep,
    Flush,
    Advance { milliseconds: u64 },
    StepBack { seconds: u64 },
    StepForward { seconds: u64 },
    Restart { options: Options },
    Fault { panics: bool, happened: bool },
}

/// How an engine is set up.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) in_memory: bool,
    pub(crate) synced: bool,
    pub(crate) idle_seconds: Option<u64>,
    pub(crate) lifetime_seconds: Option<u64>,
    pub(crate) max_sessions: Option<u64>,
    pub(crate) max_per_user: Option<u64>,
    pub(crate) payload_bytes_max: usize,
    pub(crate) sessions_in_memory_max: usize,
    pub(crate) live_sessions_max: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) passivate_seconds: u64,
    /// Whether handles are kept and used again.
    pub(crate) keeps_handles: bool,
}

fn name() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..IDS.len(), 2 => IDS.len()..IDS.len() + 6]
}

/// Mostly one of two, so that users come to have several sessions.
fn user() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..2_usize, 1 => 0..USERS.len()]
}

/// Mostly numbers, which updates can add to.
fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        8 => (0..3_i64).prop_map(Data::Number),
        2 => any::<String>().prop_map(Data::Text),
        1 => vec(any::<u8>(), 0..20).prop_map(Data::Raw),
        1 => (0..400_usize).prop_map(Data::Long),
    ]
}

fn set() -> impl Strategy<Value = Set> {
    prop_oneof![
        3 => data().prop_map(Set::Data),
        5 => user().prop_map(Set::User),
        1 => Just(Set::ClearUser),
        3 => (0..WORDS.len(), 0..WORDS.len()).prop_map(|(key, value)| Set::Metadata(key, value)),
        1 => (0..WORDS.len()).prop_map(Set::RemoveMetadata),
        2 => (0..40_u64).prop_map(Set::IdleSeconds),
        1 => Just(Set::ClearIdle),
        2 => (-1..60_i64).prop_map(Set::EndsInSeconds),
        1 => Just(Set::ClearEnd),
        2 => Just(Set::KeepIdle),
        2 => (0..4_usize).prop_map(Set::IfVersion),
    ]
}

fn sets() -> impl Strategy<Value = Vec<Set>> {
    vec(set(), 0..5)
}

fn span() -> impl Strategy<Value = Option<(i64, i64)>> {
    option::weighted(0.2, (-5..60_i64, -5..60_i64))
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let metadata = vec((0..WORDS.len(), 0..WORDS.len()), 0..2);
    (
        option::weighted(0.3, user()),
        option::weighted(0.3, 0..IDS.len()),
        option::weighted(0.2, name()),
        vec(name(), 0..2),
        span(),
        span(),
        prop_oneof![4 => Just(Vec::new()), 2 => metadata],
    )
        .prop_map(|(user, prefix, serial_of, except, created, active, metadata)| Conditions {
            user,
            prefix,
            serial_of,
            except,
            created,
            active,
            metadata,
        })
}

/// Any setting up of an engine.
pub(crate) fn options() -> impl Strategy<Value = Options> {
    let limits = (option::weighted(0.2, 1..6_u64), option::weighted(0.4, 1..4_u64), 40..300_usize);
    let expiry = (option::weighted(0.4, 1..40_u64), option::weighted(0.3, 5..90_u64));
    let memory = (1..8_usize, 1..4_usize, prop_oneof![Just(1_usize), Just(2_000), Just(64 << 20)], 1..30_u64);
    (any::<bool>(), any::<bool>(), any::<bool>(), limits, expiry, memory).prop_map(
        |(in_memory, synced, keeps_handles, limits, expiry, memory)| Options {
            in_memory,
            synced,
            idle_seconds: expiry.0,
            lifetime_seconds: expiry.1,
            max_sessions: limits.0,
            max_per_user: limits.1,
            payload_bytes_max: limits.2,
            sessions_in_memory_max: memory.0,
            live_sessions_max: memory.1,
            record_bytes_max: memory.2,
            passivate_seconds: memory.3,
            keeps_handles,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let writes = Union::new_weighted(vec![
        (
            8,
            (option::weighted(0.8, name()), sets(), any::<bool>())
                .prop_map(|(name, sets, or_existing)| O::Create { name, sets, or_existing })
                .boxed(),
        ),
        (6, (name(), data(), any::<bool>()).prop_map(|(name, data, synced)| O::Save { name, data, synced }).boxed()),
        (3, (name(), 0..3_usize, data()).prop_map(|(name, version, data)| O::SaveIf { name, version, data }).boxed()),
        (5, (name(), sets()).prop_map(|(name, sets)| O::Apply { name, sets }).boxed()),
        (4, (name(), 0..2_i64).prop_map(|(name, add)| O::Update { name, add }).boxed()),
        (
            6,
            (name(), 0..3_i64, any::<bool>())
                .prop_map(|(name, add, refuses)| O::TryUpdate { name, add, refuses })
                .boxed(),
        ),
        (1, name().prop_map(|name| O::PanickingUpdate { name }).boxed()),
        (3, (name(), sets()).prop_map(|(name, sets)| O::Rotate { name, sets }).boxed()),
        (2, name().prop_map(|name| O::Delete { name }).boxed()),
    ]);
    let reads = Union::new_weighted(vec![
        (8, name().prop_map(|name| O::Get { name }).boxed()),
        (8, name().prop_map(|name| O::Touch { name }).boxed()),
        (3, (name(), any::<bool>()).prop_map(|(name, synced)| O::TouchWith { name, synced }).boxed()),
        (
            4,
            (conditions(), 0..3_u8, 1..5_usize)
                .prop_map(|(conditions, order, limit)| O::List { conditions, order, limit })
                .boxed(),
        ),
        (2, conditions().prop_map(|conditions| O::Count { conditions }).boxed()),
    ]);
    let engine = Union::new_weighted(vec![
        (1, conditions().prop_map(|conditions| O::DeleteWhere { conditions }).boxed()),
        (1, Just(O::Sweep).boxed()),
        (1, Just(O::Flush).boxed()),
        (6, (0..8_000_u64).prop_map(|milliseconds| O::Advance { milliseconds }).boxed()),
        (1, (0..200_u64).prop_map(|seconds| O::StepBack { seconds }).boxed()),
        (1, (0..100_u64).prop_map(|seconds| O::StepForward { seconds }).boxed()),
        (1, options().prop_map(|options| O::Restart { options }).boxed()),
        (1, (any::<bool>(), any::<bool>()).prop_map(|(panics, happened)| O::Fault { panics, happened }).boxed()),
    ]);
    prop_oneof![6 => writes, 6 => reads, 3 => engine]
}

/// Any sequence of operations.
pub(crate) fn operations(most: usize) -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 1..most)
}
