use super::*;
use crate::sound::testing::pitch;

fn write(opl: &mut Opl, bank: u8, register: u8, value: u8) {
    opl.select(bank, register);
    opl.write(value, 0);
}

/// A note of a plain sine, which stays as loud as it can.
fn press(opl: &mut Opl, bank: u8, channel: u8, f_number: u16, block: u8) {
    let slot = slot(usize::from(channel)) as u8;
    for (register, value) in [(0x20, 0x21), (0x40, 0x3f), (0x60, 0xf0), (0x80, 0x0f), (0xe0, 0)] {
        write(opl, bank, register + slot, value);
    }
    for (register, value) in [(0x20, 0x21), (0x40, 0), (0x60, 0xf0), (0x80, 0x0f), (0xe0, 0)] {
        write(opl, bank, register + slot + 3, value);
    }
    write(opl, bank, OUTPUT + channel, OUTPUT_LEFT | OUTPUT_RIGHT);
    write(opl, bank, F_NUMBER_LOW + channel, f_number as u8);
    write(opl, bank, KEY_BLOCK + channel, KEY_ON | block << 2 | (f_number >> 8) as u8);
}

fn frames(opl: &mut Opl, count: usize) -> Vec<[i32; 2]> {
    (0..count).map(|_| opl.frame()).collect()
}

fn left(frames: &[[i32; 2]]) -> Vec<i16> {
    frames.iter().map(|frame| frame[0] as i16).collect()
}

fn loudest(frames: &[[i32; 2]]) -> i32 {
    frames.iter().map(|frame| frame[0].abs()).max().unwrap_or(0)
}

#[test]
fn notes_have_their_pitch() {
    // The octave of the application manual, and ends of the range.
    for (f_number, block) in [(0x16b, 4), (0x1e5, 4), (0x2ae, 4), (0x2ae, 1), (0x241, 7), (0x3ff, 5)] {
        for (bank, channel) in [(0, 0), (0, 8), (1, 4)] {
            let mut opl = Opl::default();
            write(&mut opl, 1, NEW, NEW_MODE);
            press(&mut opl, bank, channel, f_number, block);
            let heard = pitch(&left(&frames(&mut opl, 48_000)));
            let wanted = f64::from(f_number) * f64::from(SAMPLE_RATE) * 2f64.powi(i32::from(block) - 20);
            assert!((heard / wanted - 1.0).abs() < 0.01, "{heard} instead of {wanted}");
        }
    }
}

#[test]
fn a_note_fades_and_is_over() {
    let mut opl = Opl::default();
    assert!(!opl.sounds());
    press(&mut opl, 0, 0, 0x2ae, 4);
    let loud = loudest(&frames(&mut opl, 4800));
    assert!((4000..4096).contains(&loud), "{loud}");
    // 96 dB at rate 4 * 5 + 2 take some 1.8 s.
    write(&mut opl, 0, 0x83, 0x05);
    write(&mut opl, 0, KEY_BLOCK, 4 << 2 | 2);
    let fading = frames(&mut opl, 12_000);
    let (begin, end) = (loudest(&fading[..2000]), loudest(&fading[10_000..]));
    assert!(end < begin / 2 && end > 0, "{begin} {end}");
    frames(&mut opl, 96_000);
    assert!(!opl.sounds());
    assert_eq!(opl.frame(), [0, 0]);
}

#[test]
fn a_level_is_three_quarters_of_a_decibel() {
    let level = |level: u8| {
        let mut opl = Opl::default();
        press(&mut opl, 0, 0, 0x2ae, 4);
        write(&mut opl, 0, 0x43, level);
        f64::from(loudest(&frames(&mut opl, 4800)))
    };
    let loss = 20.0 * (level(0) / level(16)).log10();
    assert!((loss - 12.0).abs() < 0.1, "{loss}");
}

#[test]
fn a_modulator_makes_overtones() {
    let mut opl = Opl::default();
    press(&mut opl, 0, 0, 0x2ae, 4);
    let plain = left(&frames(&mut opl, 4800));
    write(&mut opl, 0, 0x40, 0x08);
    let modulated = left(&frames(&mut opl, 4800));
    let turns = |samples: &[i16]| samples.windows(3).filter(|w| (w[1] > w[0]) != (w[2] > w[1])).count();
    assert!(turns(&modulated) > 2 * turns(&plain));
}

#[test]
fn four_operators_are_one_channel() {
    let mut opl = Opl::default();
    write(&mut opl, 1, NEW, NEW_MODE);
    write(&mut opl, 1, CONTROL_OR_FOUR, 1);
    press(&mut opl, 0, 3, 0x100, 2);
    write(&mut opl, 0, KEY_BLOCK + 3, 0);
    // The second channel's operators are pressed by the first, and at its pitch.
    press(&mut opl, 0, 0, 0x2ae, 4);
    let heard = pitch(&left(&frames(&mut opl, 48_000)));
    assert!((heard / 520.4 - 1.0).abs() < 0.01, "{heard}");
    assert!(opl.operators[7].pressed);
}

#[test]
fn drums_are_heard_and_stop() {
    for drum in [RHYTHM_BASS, RHYTHM_SNARE, RHYTHM_TOM, RHYTHM_CYMBAL, RHYTHM_HI_HAT] {
        let mut opl = Opl::default();
        for channel in [6, 7, 8] {
            press(&mut opl, 0, channel, 0x200, 3);
            write(&mut opl, 0, KEY_BLOCK + channel, 3 << 2 | 2);
            // The first operators are drums of their own here.
            write(&mut opl, 0, 0x40 + slot(channel.into()) as u8, 0);
        }
        frames(&mut opl, 4800);
        assert!(!opl.sounds());
        write(&mut opl, 0, RHYTHM, RHYTHM_ON | drum);
        assert!(loudest(&frames(&mut opl, 4800)) > 4000, "{drum:x}");
        write(&mut opl, 0, RHYTHM, RHYTHM_ON);
        frames(&mut opl, 4800);
        assert!(!opl.sounds(), "{drum:x}");
    }
}

#[test]
fn sides_are_those_of_the_register() {
    let mut opl = Opl::default();
    write(&mut opl, 1, NEW, NEW_MODE);
    press(&mut opl, 0, 0, 0x2ae, 4);
    write(&mut opl, 0, OUTPUT, OUTPUT_RIGHT);
    assert!(frames(&mut opl, 100).iter().skip(5).all(|frame| frame[0] == 0));
    write(&mut opl, 1, NEW, 0);
    assert!(loudest(&frames(&mut opl, 100)) > 4000, "an OPL2 has one output");
}

#[test]
fn timers_run_out() {
    let mut opl = Opl::default();
    let mut at = |now, register, value| {
        opl.select(0, register);
        opl.write(value, now);
        opl.status(now)
    };
    // As drivers look for the chip.
    at(0, CONTROL_OR_FOUR, 0x60);
    assert_eq!(at(0, CONTROL_OR_FOUR, 0x80), 0);
    at(0, TIMER1, 0xff);
    assert_eq!(at(0, CONTROL_OR_FOUR, 0x21), 0);
    assert_eq!(opl.status(80_000), 0);
    assert_eq!(opl.status(81_000), 0xc0);
    opl.select(0, CONTROL_OR_FOUR);
    opl.write(0x80, 81_000);
    assert_eq!(opl.status(81_000), 0);
    assert_eq!(opl.status(u64::MAX / 2), 0xc0, "it runs on");
    opl.write(0x60, u64::MAX / 2);
    opl.write(0x80, u64::MAX / 2);
    assert_eq!(opl.status(u64::MAX / 2 + 1_000_000), 0);
}

#[test]
fn waveforms_are_what_the_manual_draws() {
    for waveform in 0..8 {
        let mut operator = Operator { stage: Stage::Sustain, loss: 0, ..Operator::default() };
        let cycle: Vec<i32> = (0..1024).map(|at| operator.play(waveform, at)).collect();
        let (max, min) = (cycle.iter().max().unwrap(), cycle.iter().min().unwrap());
        assert!(*max > 4000, "{waveform}");
        assert_eq!(*min < -4000, matches!(waveform, 0 | 4 | 6 | 7), "{waveform}");
        let silent = cycle.iter().filter(|value| **value == 0).count();
        assert_eq!(silent >= 512, matches!(waveform, 1 | 3 | 4 | 5), "{waveform}: {silent}");
    }
}
