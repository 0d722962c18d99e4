//! Amounts for people: speeds, durations and bytes.

/// A speed, such as "163 tokens/s", or "3.2 s per token" below one a second. `None` if nothing was
/// done or no time passed.
pub fn speed(n: f64, seconds: f64, one: &str, many: &str) -> Option<String> {
    let per_second = n / seconds;
    match per_second {
        v if !v.is_finite() || v <= 0.0 => None,
        10.0.. => Some(format!("{per_second:.0} {many}/s")),
        0.95.. => Some(format!("{per_second:.1} {many}/s")),
        _ => Some(format!("{:.1} s per {one}", 1.0 / per_second)),
    }
}

/// Tokens per second.
pub fn token_speed(n_tokens: f64, seconds: f64) -> Option<String> {
    speed(n_tokens, seconds, "token", "tokens")
}

/// Bytes in MiB or GiB.
pub fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10_000.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// Bytes from a number and a unit, such as 512MiB, 2GiB or 1.5G; K, M, G and T are powers of 1,024.
#[cfg(feature = "serve")]
pub fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(format!("{text:?} has no unit of bytes: write 512MiB or 2GiB")),
    };
    let bytes = number.parse::<f64>().map_err(|_| format!("{text:?} is no size: write 512MiB or 2GiB"))?;
    Ok((bytes * 1024f64.powi(power)) as u64)
}

/// Seconds in the two largest units.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// Seconds in the largest unit, for an estimate.
pub fn rough_duration(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..6000.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_speed_is_seconds_per_token() {
        for (n, seconds, text) in [
            (163.4, 1.0, Some("163 tokens/s")),
            (3.0, 2.0, Some("1.5 tokens/s")),
            (1.0, 1.0, Some("1.0 tokens/s")),
            (1.0, 3.2, Some("3.2 s per token")),
            (1.0, 0.0, None),
            (0.0, 1.0, None),
            (0.0, 0.0, None),
        ] {
            assert_eq!(token_speed(n, seconds).as_deref(), text, "{n} in {seconds} s");
        }
    }

    #[cfg(feature = "serve")]
    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        for (text, bytes) in [("0", 0), ("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("1.5G", 3 << 29), ("64k", 64 << 10)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "lots", "2 gallons", "-1G", "1.2.3M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_estimate_has_one_unit() {
        for (seconds, text) in
            [(0.2, "0 s"), (99.0, "99 s"), (600.0, "10 min"), (9000.0, "2.5 h"), (400_000.0, "4.6 d")]
        {
            assert_eq!(rough_duration(seconds), text);
        }
    }
}
