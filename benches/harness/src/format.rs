//! Numbers for people: three digits and a unit.

/// Writes a whole number with its thousands set apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a rate or another large number: `740`, `92.3 k`, `1.24 M`.
pub fn rate(number: f64) -> String {
    scaled(number, 1_000.0, &["", " k", " M", " G"])
}

/// Writes a number of bytes: `75 B`, `7.80 KiB`.
pub fn bytes(number: f64) -> String {
    scaled(number, 1_024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

/// Writes a duration given in microseconds.
pub fn micros(number: f64) -> String {
    scaled(number, 1_000.0, &[" µs", " ms", " s"])
}

/// Writes a ratio: `0.85×`, `23.1×`.
pub fn ratio(number: f64) -> String {
    format!("{}×", three_digits(number))
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // 999.5 would be written with four digits.
    while number >= step - 0.5 {
        let Some(next) = units.next() else { break };
        number /= step;
        unit = next;
    }
    format!("{}{unit}", three_digits(number))
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        ..9.995 if number > 0.0 => 2,
        10.0..99.95 | 9.995..10.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(rate(740.2), "740");
        assert_eq!(rate(92_345.0), "92.3 k");
        assert_eq!(rate(999_900.0), "1.00 M");
        assert_eq!(rate(26_100_000.0), "26.1 M");
        assert_eq!(bytes(75.0), "75.0 B");
        assert_eq!(bytes(7_987.0), "7.80 KiB");
        assert_eq!(micros(0.07), "0.07 µs");
        assert_eq!(micros(1_250.0), "1.25 ms");
        assert_eq!(ratio(0.853), "0.85×");
        assert_eq!(rate(0.0), "0");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(count(7), "7");
        assert_eq!(count(999), "999");
        assert_eq!(count(50_000), "50,000");
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
