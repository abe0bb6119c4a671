//! The time for guests, by the host's clock (RFC 5905).

use std::time::{SystemTime, UNIX_EPOCH};

/// The server's port.
pub const PORT: u16 = 123;

/// Answers a client (7.3).
pub fn answer(request: &[u8], now: SystemTime) -> Option<Vec<u8>> {
    /// Seconds from 1900 to 1970.
    const EPOCH: u64 = 2_208_988_800;
    const LENGTH: usize = 48;
    const CLIENT: u8 = 3;
    const SERVER: u8 = 4;
    const STRATUM: u8 = 2;
    /// 2^-20 seconds.
    const PRECISION: i8 = -20;
    let (flags, transmitted) = (*request.first()?, request.get(40..LENGTH)?);
    if flags & 7 != CLIENT {
        return None;
    }
    let since = now.duration_since(UNIX_EPOCH).ok()?;
    let seconds = (since.as_secs() + EPOCH) as u32;
    let fraction = ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000) as u32;
    let time = [seconds.to_be_bytes(), fraction.to_be_bytes()].concat();
    let mut answer = vec![0; LENGTH];
    answer[..4].copy_from_slice(&[flags & 0x38 | SERVER, STRATUM, request[2], PRECISION as u8]);
    answer[12..16].copy_from_slice(b"HOST");
    answer[16..24].copy_from_slice(&time);
    answer[24..32].copy_from_slice(transmitted);
    answer[32..40].copy_from_slice(&time);
    answer[40..].copy_from_slice(&time);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_is_the_hosts() {
        let mut request = vec![0; 48];
        request[0] = 0x23;
        request[40..].copy_from_slice(b"whenever");
        let now = UNIX_EPOCH + Duration::from_millis(1_500);
        let told = answer(&request, now).unwrap();
        assert_eq!((told[0], told[1]), (0x24, 2));
        assert_eq!(&told[24..32], b"whenever");
        assert_eq!(told[40..], [0x83, 0xaa, 0x7e, 0x81, 0x80, 0, 0, 0]);
        request[0] = 0x24;
        assert_eq!(answer(&request, now), None);
        assert_eq!(answer(&request[..20], now), None);
    }
}
