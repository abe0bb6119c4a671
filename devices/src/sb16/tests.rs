use super::*;
use crate::sound::testing::{left, pitch};
use crate::sound::{Sound, mix};

const DSP: u16 = PORT_BASE;
const MS: u64 = 1_000_000;

/// A card, memory and a DMA controller, and their time.
struct Bench {
    card: Sb16,
    mem: Box<Memory>,
    dma: Dma,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let mem = Memory::new(1 << 20).unwrap();
        let mut bench = Self { card: Sb16::default(), mem, dma: Dma::default(), now: MS };
        // Both volumes at their most.
        [(0x30, 0xf8), (0x31, 0xf8), (0x32, 0xf8), (0x33, 0xf8), (0x34, 0xf8), (0x35, 0xf8)]
            .into_iter()
            .for_each(|(index, value)| bench.mixer(index, value));
        bench
    }

    fn write(&mut self, port: u16, value: u8) {
        self.card.run(&mut self.mem, &mut self.dma, self.now);
        self.card.write(port, value, &mut self.mem, &mut self.dma, self.now);
    }

    fn read(&mut self, port: u16) -> u8 {
        self.card.run(&mut self.mem, &mut self.dma, self.now);
        self.card.read(port, self.now)
    }

    fn mixer(&mut self, index: u8, value: u8) {
        self.write(DSP + MIXER_INDEX, index);
        self.write(DSP + MIXER_DATA, value);
    }

    fn dsp(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write(DSP + COMMAND, *byte));
    }

    /// The answers that wait.
    fn answers(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        while self.read(DSP + READ_STATUS) & STATUS_BIT != 0 {
            answers.push(self.read(DSP + READ));
        }
        answers
    }

    /// Programs a DMA channel to go over `bytes` bytes at 20000h again and again.
    fn channel(&mut self, channel: u8, bytes: u16) {
        let wide = channel >= 4;
        let select = channel & 3;
        let (base, step, page) = if wide { (0xc0, 2, 0x8b) } else { (0, 1, 0x83) };
        let port = |register: u16| base + register * step;
        let count = if wide { bytes / 2 } else { bytes } - 1;
        let mut writes = vec![(port(10), 4 | select), (port(12), 0), (port(11), 0x58 | select)];
        writes.extend([0, 0].map(|byte| (port(u16::from(select) * 2), byte)));
        writes.extend(count.to_le_bytes().map(|byte| (port(u16::from(select) * 2 + 1), byte)));
        writes.extend([(page, 2), (port(10), select)]);
        writes.into_iter().for_each(|(port, value)| self.dma.write(port, value));
    }

    fn line(&mut self) -> Option<(u8, bool)> {
        self.card.irq().0
    }

    /// Goes on for a while, as a board does; gives what is heard, and how often the line rose.
    fn play(&mut self, ns: u64) -> (Option<Sound>, usize) {
        let (end, mut rises) = (self.now + ns, 0);
        while self.now < end {
            self.now = self.card.next_event().unwrap_or(end).clamp(self.now, end);
            self.card.run(&mut self.mem, &mut self.dma, self.now);
            if self.line().is_some_and(|(_, level)| level) {
                rises += 1;
                self.read(DSP + READ_STATUS);
                self.read(DSP + ACKNOWLEDGE_WIDE);
            }
        }
        (mix([self.card.track()]), rises)
    }
}

/// A sine of so many hertz.
fn sine(hertz: f64, rate: f64, samples: usize) -> Vec<f64> {
    (0..samples).map(|at| (at as f64 * hertz / rate * std::f64::consts::TAU).sin()).collect()
}

#[test]
fn drivers_find_it() {
    let mut bench = Bench::new();
    bench.write(DSP + RESET, 1);
    assert!(bench.answers().is_empty());
    bench.write(DSP + RESET, 0);
    assert_eq!(bench.answers(), [0xaa]);
    bench.dsp(&[0xe1]);
    assert_eq!(bench.answers(), [4, 5]);
    bench.dsp(&[0xe0, 0x5a, 0xe4, 0x77, 0xe8]);
    assert_eq!(bench.answers(), [0xa5, 0x77]);
    bench.dsp(&[0xe3]);
    assert!(bench.answers().starts_with(b"COPYRIGHT"));
    bench.dsp(&[0xd1, 0xd8, 0xd3, 0xd8]);
    assert_eq!(bench.answers(), [0xff, 0]);
    assert_eq!(bench.read(DSP + COMMAND) & STATUS_BIT, 0);
    bench.write(0x331, 0xff);
    assert_eq!((bench.read(0x331), bench.read(0x330)), (0, 0xfe));
    assert!(!bench.card.sounds());
    assert_eq!(bench.card.next_event(), None, "silence costs nothing");
}

#[test]
fn it_identifies_itself_by_dma() {
    let mut bench = Bench::new();
    bench.channel(1, 16);
    bench.dma.write(11, 0x55);
    bench.dsp(&[0xe2, 0x00]);
    assert_eq!(bench.mem.read_u8(0x2_0000), 0xaau8.wrapping_sub(106));
}

#[test]
fn interrupts_are_acknowledged_by_their_kind() {
    let mut bench = Bench::new();
    bench.dsp(&[0xf2]);
    assert_eq!(bench.line(), Some((5, true)));
    bench.write(DSP + MIXER_INDEX, 0x82);
    assert_eq!(bench.read(DSP + MIXER_DATA), 0x21);
    bench.read(DSP + ACKNOWLEDGE_WIDE);
    assert_eq!(bench.line(), Some((5, true)));
    bench.read(DSP + READ_STATUS);
    assert_eq!(bench.line(), Some((5, false)));
    bench.dsp(&[0xf3]);
    bench.write(DSP + MIXER_INDEX, 0x82);
    assert_eq!(bench.read(DSP + MIXER_DATA), 0x22);
    bench.mixer(0x80, 0x04);
    assert_eq!(bench.card.irq(), (Some((7, true)), Some(5)), "the old line is let go of");
    bench.read(DSP + ACKNOWLEDGE_WIDE);
    assert_eq!(bench.card.irq(), (Some((7, false)), None));
}

#[test]
fn streams_have_their_pitch_and_interrupts() {
    const RATE: u16 = 22_050;
    const SAMPLES: usize = 4410;
    let tone = sine(1000.0, RATE.into(), SAMPLES);
    let narrow: Vec<u8> = tone.iter().map(|value| (128.0 + value * 120.0) as u8).collect();
    let wide: Vec<u8> =
        tone.iter().flat_map(|value| ((value * 30_000.0) as i16).to_le_bytes().repeat(2)).collect();
    let [rate_high, rate_low] = RATE.to_be_bytes();
    let block = (SAMPLES / 2 - 1) as u16;
    let [low, high] = block.to_le_bytes();
    let [wide_low, wide_high] = (SAMPLES as u16 - 1).to_le_bytes();
    let constant = (256 - 1_000_000 / u32::from(RATE)) as u8;
    let cases: [(&str, &[u8], &[u8]); 4] = [
        ("8 bits by time constant", &narrow, &[0x40, constant, 0x48, low, high, 0x1c]),
        ("8 bits at high speed", &narrow, &[0x40, constant, 0x48, low, high, 0x90]),
        ("8 bits", &narrow, &[0x41, rate_high, rate_low, 0xc6, 0x00, low, high]),
        ("16 bits, stereo, signed", &wide, &[0x41, rate_high, rate_low, 0xb6, 0x30, wide_low, wide_high]),
    ];
    for (what, memory, commands) in cases {
        let mut bench = Bench::new();
        bench.mem.write(0x2_0000, memory);
        bench.channel(if memory.len() > SAMPLES { 5 } else { 1 }, memory.len() as u16);
        bench.dsp(commands);
        let (sound, rises) = bench.play(1000 * MS);
        let sound = sound.unwrap();
        assert_eq!(sound.frames.len(), 48_000, "{what}");
        assert!((9..=10).contains(&rises), "{what}: {rises} interrupts");
        let heard = pitch(&left(&sound));
        assert!((heard / 1000.0 - 1.0).abs() < 0.01, "{what}: {heard}");
        let loudest = left(&sound).into_iter().max();
        assert!(loudest.is_some_and(|loudest| loudest > 29_000), "{what}: {loudest:?}");
    }
}

#[test]
fn a_stream_is_paused_continued_and_left() {
    let mut bench = Bench::new();
    bench.mem.write(0x2_0000, &[0xc0; 1000]);
    bench.channel(1, 1000);
    bench.dsp(&[0x41, 0x27, 0x10, 0xc6, 0x00, 0xe7, 0x03]); // 10 kHz, 1000 samples
    assert_eq!(bench.play(250 * MS).1, 2);
    let remaining = bench.dma.remaining(1);
    bench.dsp(&[0xd0]);
    assert_eq!(bench.play(250 * MS).1, 0);
    assert_eq!(bench.dma.remaining(1), remaining);
    assert_eq!(bench.card.next_event(), None, "a pause costs nothing");
    bench.dsp(&[0xd4]);
    assert_eq!(bench.play(100 * MS).1, 1);
    bench.dsp(&[0xda]);
    assert_eq!(bench.play(1000 * MS).1, 1, "to the end of the block");
    assert_eq!(bench.card.playback.transfer, None);
    // One block by a command of its own.
    bench.dsp(&[0xc0, 0x00, 0xe7, 0x03]);
    assert_eq!(bench.play(1000 * MS).1, 1);
}

#[test]
fn samples_one_by_one_are_heard() {
    let mut bench = Bench::new();
    for value in sine(500.0, 8000.0, 4000) {
        bench.dsp(&[0x10, (128.0 + value * 100.0) as u8]);
        bench.now += 125_000;
        bench.card.run(&mut bench.mem, &mut bench.dma, bench.now);
    }
    let samples = left(&mix([bench.card.track()]).unwrap());
    let heard = pitch(&samples);
    assert!((heard / 500.0 - 1.0).abs() < 0.01, "{heard}");
}

#[test]
fn compressed_samples_stay_silent_and_end() {
    let mut bench = Bench::new();
    bench.mem.write(0x2_0000, &[0x55; 1000]);
    bench.channel(1, 1000);
    bench.dsp(&[0x40, 156, 0x74, 0xe7, 0x03]); // 10 kHz, 1000 bytes of two samples
    let (sound, rises) = bench.play(190 * MS);
    assert_eq!(rises, 0);
    assert!(sound.is_none_or(|sound| sound.frames.iter().all(|frame| *frame == [0, 0])));
    assert_eq!(bench.play(20 * MS).1, 1);
}

#[test]
fn dma_to_nowhere_does_no_harm() {
    let mut bench = Bench::new();
    bench.channel(1, 0xffff);
    bench.dma.write(0x83, 0xff);
    bench.dsp(&[0x41, 0xff, 0xff, 0xc6, 0x20, 0xff, 0xff]);
    bench.play(3000 * MS);
    bench.mixer(0x81, 0);
    assert_eq!(bench.play(1000 * MS).1, 0);
    // A day goes by at once.
    bench.now += 86_400_000 * MS;
    bench.play(MS);
}

#[test]
fn the_synthesizer_is_at_all_its_ports() {
    let mut bench = Bench::new();
    for port in [0x388, 0x220, 0x228] {
        for (register, value) in [(4, 0x60), (4, 0x80), (2, 0xff), (4, 0x21)] {
            bench.write(port, register);
            bench.write(port + 1, value);
        }
        bench.now += MS;
        assert_eq!(bench.read(port), 0xc0);
    }
    // A note, at half of the volume.
    let note = [(0x23, 0x21), (0x43, 0), (0x63, 0xf0), (0x83, 0x0f), (0xa0, 0xae), (0xb0, 0x32)];
    for (register, value) in note {
        bench.write(0x388, register);
        bench.write(0x389, value);
    }
    let sound = bench.play(500 * MS).0.unwrap();
    let heard = pitch(&left(&sound));
    assert!((heard / 520.4 - 1.0).abs() < 0.01, "{heard}");
}

#[test]
fn how_often_it_is_asked_makes_no_difference() {
    let play = |step: u64| {
        let mut bench = Bench::new();
        bench.mem.write(0x2_0000, &(0..1000u32).map(|at| ((at * at) >> 3) as u8).collect::<Vec<_>>());
        bench.channel(1, 1000);
        bench.dsp(&[0x41, 0x56, 0x22, 0xc6, 0x00, 0xe7, 0x03]);
        let mut frames = Vec::new();
        while bench.now < 201 * MS {
            bench.now += step;
            bench.card.run(&mut bench.mem, &mut bench.dma, bench.now);
            frames.extend(mix([bench.card.track()]).map(|sound| sound.frames).unwrap_or_default());
        }
        frames
    };
    assert_eq!(play(50_000), play(20 * MS));
}
