//! Numbers and times for people: three digits and a unit, whole seconds; and text that a terminal shows and does not obey.

use std::fmt::Write;

use serde_json::Value;
use sessile::Timestamp;
pub(crate) use sessile_harness::format::{bytes, count, micros, rate, ratio};

/// Writes a time in whole seconds.
pub(crate) fn moment(at: Timestamp) -> String {
    const MICROS: i64 = 1_000_000;
    let text = Timestamp::from_micros(at.as_micros().div_euclid(MICROS) * MICROS).to_string();
    text.replacen(".000000", "", 1)
}

/// Writes text that comes from users on one line, with what would steer the terminal spelled out.
pub(crate) fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Writes JSON over several lines; what would steer the terminal stands as an escape of JSON's.
pub(crate) fn json(value: &Value) -> String {
    let pretty = format!("{value:#}");
    let mut shown = String::with_capacity(pretty.len());
    for character in pretty.chars() {
        // Such stand in strings only, but for the ends of lines.
        if steers(character) && character != '\n' {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether a character does something to the terminal or to the order of the text: controls, ESC and CSI among them, ends
/// of lines, and Unicode's marks of direction (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_steer_the_terminal() {
        assert_eq!(text("Ada Löwe 王"), "Ada Löwe 王");
        assert_eq!(text("\x1b[2J\r\n\x07"), "\\u{1b}[2J\\u{d}\\u{a}\\u{7}");
        assert_eq!(text("\u{9b}31m\u{7f}\u{202e}gpj"), "\\u{9b}31m\\u{7f}\\u{202e}gpj");
    }

    #[test]
    fn json_does_not_steer_the_terminal_and_stays_the_same_json() {
        let value = serde_json::json!({ "na\u{9b}me\x1b": ["\x1b]0;x\x07", "two\nlines", "\u{202e}\u{7f}", "王"] });
        let shown = json(&value);
        assert!(shown.chars().all(|character| character == '\n' || !steers(character)), "{shown:?}");
        assert!(shown.contains('王') && shown.lines().count() > 4);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
    }

    #[test]
    fn times_are_in_whole_seconds() {
        assert_eq!(moment(Timestamp::from_micros(1_999_999)), "1970-01-01T00:00:01Z");
    }
}
