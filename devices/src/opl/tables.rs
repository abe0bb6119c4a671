//! The tables in the chip's ROMs, by the formulas that they were made of.

/// Entries of a table: a quarter of a cycle, a factor of two.
const ENTRIES: usize = 256;

/// The loss of a quarter of a sine, at the middle of each step, in 1/256 of a factor of two.
pub const SINE_LOSS: [u16; ENTRIES] = sine_loss();
/// What is behind the point of the powers of two from 1 to 2, in 1/1024.
pub const POWER: [u16; ENTRIES] = power();

/// The loss that nothing is heard of.
pub const SILENCE: u16 = 0x1000;

/// The logarithm to the base 2 of a number between 0 and 1, without its sign.
const fn loss(mut x: f64) -> f64 {
    let (mut whole, mut part, mut weight) = (0.0, 0.0, 0.5);
    while x < 1.0 {
        x *= 2.0;
        whole += 1.0;
    }
    let mut bits = 0;
    while bits < 40 {
        x *= x;
        if x >= 2.0 {
            x /= 2.0;
            part += weight;
        }
        weight /= 2.0;
        bits += 1;
    }
    whole - part
}

/// A sine between 0 and a quarter of a cycle, by its series.
const fn sine(x: f64) -> f64 {
    let (mut sum, mut term, mut n) = (x, x, 1.0);
    while n < 12.0 {
        term *= -x * x / ((2.0 * n) * (2.0 * n + 1.0));
        sum += term;
        n += 1.0;
    }
    sum
}

const fn sine_loss() -> [u16; ENTRIES] {
    let (mut table, mut at) = ([0; ENTRIES], 0);
    while at < ENTRIES {
        let angle = (at as f64 + 0.5) * core::f64::consts::FRAC_PI_2 / ENTRIES as f64;
        table[at] = (loss(sine(angle)) * 256.0 + 0.5) as u16;
        at += 1;
    }
    table
}

const fn power() -> [u16; ENTRIES] {
    /// The 256th root of 2.
    const STEP: f64 = 1.002_711_275_050_202_5;
    let (mut table, mut at, mut value) = ([0; ENTRIES], 0, 1.0);
    while at < ENTRIES {
        table[at] = ((value - 1.0) * 1024.0 + 0.5) as u16;
        value *= STEP;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_what_their_formulas_say() {
        for at in 0..ENTRIES {
            let angle = (at as f64 + 0.5) * std::f64::consts::PI / 512.0;
            assert_eq!(SINE_LOSS[at], (-angle.sin().log2() * 256.0).round() as u16, "{at}");
            assert_eq!(POWER[at], ((2f64.powf(at as f64 / 256.0) - 1.0) * 1024.0).round() as u16, "{at}");
        }
    }
}
