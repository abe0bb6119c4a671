//! The mixer of the card, a CT1745, with the volumes of those sources that are here.

/// Index of the reset register.
const RESET: u8 = 0x00;
/// Volumes as the Sound Blaster Pro had them, left and right in a nibble each.
const PRO_VOICE: u8 = 0x04;
const PRO_MASTER: u8 = 0x22;
const PRO_FM: u8 = 0x26;
/// The Sound Blaster Pro's output control; this bit makes it play stereo.
const PRO_OUTPUT: u8 = 0x0e;
const PRO_STEREO: u8 = 0x02;
/// Volumes in the upper five bits: left, and behind it right.
const MASTER: u8 = 0x30;
const VOICE: u8 = 0x32;
const FM: u8 = 0x34;
/// Gain in the upper two bits, likewise.
const OUTPUT_GAIN: u8 = 0x41;
/// Which interrupt line is used.
const INTERRUPT_SETUP: u8 = 0x80;
/// Which DMA channels are used.
const DMA_SETUP: u8 = 0x81;
/// Which interrupts are pending.
const INTERRUPT_STATUS: u8 = 0x82;

/// What the interrupt status has besides: the DSP is of version 4.
const STATUS_VERSION: u8 = 0x20;
/// The lines that bits 0 to 3 of the setup choose. The slot's IRQ 2 is the second controller's 9.
const IRQS: [u8; 4] = [9, 5, 7, 10];
/// The channels that the setup's bits choose; the last three move words.
const NARROW_CHANNELS: [u8; 3] = [0, 1, 3];
const WIDE_CHANNELS: [u8; 3] = [5, 6, 7];

/// One, as a volume.
const UNITY: u32 = 0x1_0000;
/// 2 dB less, as a factor.
const STEP: u64 = 52_057;
/// Volumes by their five bits.
const VOLUMES: [u32; 32] = volumes();

const fn volumes() -> [u32; 32] {
    // With 16 bits more than the table, for the sake of the last steps.
    let (mut table, mut at, mut volume) = ([UNITY; 32], 31, (UNITY as u64) << 16);
    while at > 0 {
        volume = (volume * STEP) >> 16;
        at -= 1;
        table[at] = (volume >> 16) as u32;
    }
    table
}

/// The mixer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mixer {
    /// The register that the data port reaches.
    pub index: u8,
    /// The registers.
    pub registers: [u8; 256],
}

impl Default for Mixer {
    fn default() -> Self {
        let mut registers = [0; 256];
        for (from, to, value) in [
            (PRO_VOICE, PRO_VOICE, 0xcc),
            (PRO_MASTER, PRO_MASTER, 0xcc),
            (PRO_FM, PRO_FM, 0xcc),
            (MASTER, FM + 1, 0xc0),
            // Switches of outputs and inputs, and the tone.
            (0x3c, 0x3c, 0x1f),
            (0x3d, 0x3d, 0x15),
            (0x3e, 0x3e, 0x0b),
            (0x44, 0x47, 0x80),
            // IRQ 5, channels 1 and 5.
            (INTERRUPT_SETUP, INTERRUPT_SETUP, 0x02),
            (DMA_SETUP, DMA_SETUP, 0x22),
        ] {
            registers[usize::from(from)..=usize::from(to)].fill(value);
        }
        Self { index: 0, registers }
    }
}

/// What a source is multiplied with, left and right, of 10000h.
pub type Gain = [u32; 2];

impl Mixer {
    fn get(&self, register: u8) -> u8 {
        self.registers[usize::from(register)]
    }

    fn set(&mut self, register: u8, value: u8) {
        self.registers[usize::from(register)] = value;
    }

    /// Reads the chosen register. `pending` are the interrupts, a bit each.
    pub fn read(&self, pending: u8) -> u8 {
        match self.index {
            INTERRUPT_STATUS => pending | STATUS_VERSION,
            index => self.get(index),
        }
    }

    /// Writes the chosen register.
    pub fn write(&mut self, value: u8) {
        let pro = [(PRO_VOICE, VOICE), (PRO_MASTER, MASTER), (PRO_FM, FM)];
        match self.index {
            RESET => {
                let setup = (self.get(INTERRUPT_SETUP), self.get(DMA_SETUP));
                *self = Self { index: self.index, ..Self::default() };
                self.set(INTERRUPT_SETUP, setup.0);
                self.set(DMA_SETUP, setup.1);
            }
            INTERRUPT_STATUS => {}
            index => self.set(index, value),
        }
        for (old, new) in pro {
            let index = self.index;
            if index == old {
                self.set(new, value & 0xf0);
                self.set(new + 1, value << 4);
            } else if index == new || index == new + 1 {
                self.set(old, self.get(new) & 0xf0 | self.get(new + 1) >> 4);
            }
        }
    }

    /// The interrupt line, if one is chosen.
    pub fn irq(&self) -> Option<u8> {
        let setup = self.get(INTERRUPT_SETUP);
        IRQS.into_iter().enumerate().find(|(bit, _)| setup & 1 << bit != 0).map(|(_, irq)| irq)
    }

    /// Chooses an interrupt line, if the card can have it.
    pub fn set_irq(&mut self, irq: u8) {
        if let Some(bit) = IRQS.iter().position(|have| *have == irq) {
            self.set(INTERRUPT_SETUP, 1 << bit);
        }
    }

    /// The DMA channel of samples of 8 bits, or of 16 bits. Those use the former if they have none.
    pub fn dma_channel(&self, wide: bool) -> Option<u8> {
        let setup = self.get(DMA_SETUP);
        let chosen = |channels: [u8; 3]| channels.into_iter().find(|channel| setup & 1 << channel != 0);
        let narrow = || chosen(NARROW_CHANNELS);
        if wide { chosen(WIDE_CHANNELS).or_else(narrow) } else { narrow() }
    }

    /// Chooses both DMA channels, if the card can have them.
    pub fn set_dma_channels(&mut self, narrow: u8, wide: u8) {
        let bit = |channel: u8, of: [u8; 3]| if of.contains(&channel) { 1 << channel } else { 0 };
        self.set(DMA_SETUP, bit(narrow, NARROW_CHANNELS) | bit(wide, WIDE_CHANNELS));
    }

    /// The Sound Blaster Pro's commands play stereo.
    pub fn pro_stereo(&self) -> bool {
        self.get(PRO_OUTPUT) & PRO_STEREO != 0
    }

    /// What samples are multiplied with.
    pub fn voice(&self) -> Gain {
        self.gain(VOICE)
    }

    /// What the synthesizer is multiplied with.
    pub fn fm(&self) -> Gain {
        self.gain(FM)
    }

    fn gain(&self, source: u8) -> Gain {
        core::array::from_fn(|side| {
            let side = side as u8;
            let volume = |register: u8| u64::from(VOLUMES[usize::from(self.get(register + side) >> 3)]);
            let product = (volume(source) * volume(MASTER)) >> 16;
            (product << (self.get(OUTPUT_GAIN + side) >> 6)) as u32
        })
    }
}

/// A frame at a gain.
pub fn amplified(frame: [i32; 2], gain: Gain) -> [i32; 2] {
    core::array::from_fn(|side| ((i64::from(frame[side]) * i64::from(gain[side])) >> 16) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mixer: &mut Mixer, index: u8, value: u8) {
        mixer.index = index;
        mixer.write(value);
    }

    fn read(mixer: &mut Mixer, index: u8) -> u8 {
        mixer.index = index;
        mixer.read(0)
    }

    #[test]
    fn volumes_are_steps_of_two_decibels() {
        let mut mixer = Mixer::default();
        write(&mut mixer, MASTER, 0xf8);
        for step in 0..32 {
            write(&mut mixer, VOICE, step << 3);
            let loss = 20.0 * (f64::from(mixer.voice()[0]) / f64::from(UNITY)).log10();
            assert!((loss + 2.0 * f64::from(31 - step)).abs() < 0.3, "{step}: {loss}");
        }
        assert_eq!(amplified([1000, -1000], [UNITY, UNITY / 2]), [1000, -500]);
        write(&mut mixer, OUTPUT_GAIN, 0x40);
        assert_eq!(mixer.voice()[0], 2 * UNITY);
    }

    #[test]
    fn volumes_of_the_pro_are_the_same_ones() {
        let mut mixer = Mixer::default();
        write(&mut mixer, PRO_MASTER, 0x5a);
        assert_eq!((read(&mut mixer, MASTER), read(&mut mixer, MASTER + 1)), (0x50, 0xa0));
        write(&mut mixer, FM + 1, 0x38);
        assert_eq!(read(&mut mixer, PRO_FM), 0xc3);
    }

    #[test]
    fn setup_survives_a_reset_of_the_mixer() {
        let mut mixer = Mixer::default();
        assert_eq!(
            (mixer.irq(), mixer.dma_channel(false), mixer.dma_channel(true)),
            (Some(5), Some(1), Some(5))
        );
        write(&mut mixer, INTERRUPT_SETUP, 0x04);
        write(&mut mixer, DMA_SETUP, 0x08);
        write(&mut mixer, MASTER, 0);
        write(&mut mixer, RESET, 0);
        assert_eq!(
            (mixer.irq(), mixer.dma_channel(false), mixer.dma_channel(true)),
            (Some(7), Some(3), Some(3))
        );
        assert_eq!(read(&mut mixer, MASTER), 0xc0);
        write(&mut mixer, INTERRUPT_SETUP, 0);
        write(&mut mixer, DMA_SETUP, 0);
        assert_eq!((mixer.irq(), mixer.dma_channel(true)), (None, None));
        mixer.index = INTERRUPT_STATUS;
        assert_eq!(mixer.read(3), 0x23);
    }
}
