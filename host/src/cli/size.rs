//! Sizes, times and port numbers as people write them.

use std::time::Duration;

use env86::machine::Layout;

/// Parses a number of bytes: `1073741824`, `512M`, `1G`, `64KiB`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("write a size as 512M or 1G".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a size as 512M or 1G".to_owned())?;
    // What overflows is too much in any case, and the machine says so.
    Ok(number.saturating_mul(1 << shift))
}

/// Parses a time: `30`, `30s`, `5m`, `2h`, `7d`, `200ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time as 30s or 5m".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// Parses a port number, decimal or with 0x.
pub fn parse_port(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| "write a port as 0xf4".into())
}

/// Parses an order of boot devices, `cdn`, into what the setup memory has of it.
pub fn parse_boot_order(text: &str) -> Result<u16, String> {
    let digit = |letter| match letter {
        'a' => Ok(1),
        'c' => Ok(2),
        'd' => Ok(3),
        'n' => Ok(4),
        _ => Err("write the order as up to three of a (floppy), c (hard disk), d (CD-ROM), n (network)"),
    };
    match text.len() {
        1..=3 => {
            Ok(text.chars().rev().try_fold(0, |order, letter| Ok::<_, &str>(order << 4 | digit(letter)?))?)
        }
        _ => Err("write the order as up to three letters, `cd` for example".into()),
    }
}

/// Parses the name of a keyboard's layout.
pub fn parse_layout(text: &str) -> Result<Layout, String> {
    Layout::from_name(text).ok_or_else(|| {
        let names: Vec<_> = Layout::ALL.into_iter().map(Layout::name).collect();
        format!("the layouts are {}", names.join(", "))
    })
}

/// Parses an owner and group: `0:0`, or `0` for both.
pub fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok((uid, gid)),
        _ => Err("write an owner as UID:GID in numbers".into()),
    }
}

/// How long ago something was.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}

/// A number of bytes in the unit in which it has up to three digits before the point.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    let mut size = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" || size >= 10.0 { format!("{size:.0}{unit}") } else { format!("{size:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("7ms", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "5 m", "5w", "-1", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("134217728"), Ok(128 << 20));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("99999999999999G"), Ok(u64::MAX));
        for bad in ["", "M", "1.5G", "-1M", "12X"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_may_be_hexadecimal() {
        assert_eq!(parse_port("0xf4"), Ok(0xf4));
        assert_eq!(parse_port("244"), Ok(0xf4));
        assert!(parse_port("0x10000").is_err() && parse_port("f4").is_err());
    }

    #[test]
    fn owners_are_numbers() {
        assert_eq!(parse_owner("0:50"), Ok((0, 50)));
        assert_eq!(parse_owner("7"), Ok((7, 7)));
        assert!(parse_owner("root").is_err());
    }

    #[test]
    fn an_age_has_one_unit() {
        assert_eq!([59, 60, 7300, 200_000].map(age), ["59s ago", "1m ago", "2h ago", "2d ago"]);
    }

    #[test]
    fn a_size_has_few_digits() {
        assert_eq!(
            [0, 999, 1000, 1 << 20, 31 << 20, 5 << 30].map(show_size),
            ["0B", "999B", "1.0K", "1.0M", "31M", "5.0G"]
        );
    }
}
