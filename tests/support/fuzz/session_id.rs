//! Ids, which come from cookies: refused by their fault, or good for every operation.

use std::cell::OnceCell;

use sessile::{Engine, Error, Filter, InvalidId, NewSession, SessionId};

use super::harness::block_on;

/// The longest id, as the documentation has it.
const BYTES_MAX: usize = 255;
/// How many characters of an id may be shown.
const SHOWN: usize = 6;

thread_local! {
    static ENGINE: OnceCell<Engine> = const { OnceCell::new() };
}

/// Takes the input for an id.
pub(super) fn session_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let fault = if text.is_empty() {
        Some(InvalidId::Empty)
    } else if text.len() > BYTES_MAX {
        Some(InvalidId::TooLong { bytes: text.len(), bytes_max: BYTES_MAX })
    } else if text.chars().any(char::is_control) {
        Some(InvalidId::ControlCharacter)
    } else {
        None
    };
    match (SessionId::try_from(text), fault) {
        (Ok(id), None) => is_good(&id, text),
        (Err(Error::InvalidId { reason }), Some(fault)) => assert_eq!(reason, fault),
        (answer, fault) => panic!("{text:?} is {answer:?}, not {fault:?}"),
    }
}

fn is_good(id: &SessionId, text: &str) {
    assert_eq!(id.as_str(), text);
    let shown: String = text.chars().take(SHOWN).collect();
    assert_eq!(format!("{id:?}"), format!("SessionId({shown}…)"));
    let engine = ENGINE.with(|engine| {
        let open = || block_on(Engine::in_memory().open()).expect("memory opens");
        engine.get_or_init(open).clone()
    });
    block_on(async {
        let session = engine.create(NewSession::with_id(id).user(text).metadata(text, text)).await.expect("it is free");
        session.touch().await.expect("it is there");
        let by_prefix = Filter::all().id_prefix(text).user(text).metadata(text, text);
        assert_eq!(engine.count(by_prefix.clone()).await.expect("it is counted"), 1);
        assert_eq!(engine.count(by_prefix.clone().except(id)).await.expect("it is counted"), 0);
        let record = engine.session(text).expect("a valid id").get().await.expect("it is read").expect("it is there");
        assert_eq!((record.id(), record.user(), record.touch_count()), (id, Some(text), 1));
        assert_eq!(engine.delete_where(by_prefix).await.expect("it is deleted"), 1);
        assert!(session.get().await.expect("it is read").is_none());
    });
}
