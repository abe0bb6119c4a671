//! The 80-bit format of the x87 registers (SDM volume 1, 4.2.2 and 8.2).

/// The exponent field's bias.
pub const BIAS: i32 = 16383;
/// The exponent field of infinities and NaNs.
pub const EXPONENT_MAX: u16 = 0x7fff;
/// The explicit integer bit.
pub const INTEGER_BIT: u64 = 1 << 63;
/// The significand bit that tells quiet NaNs from signalling ones.
pub const QUIET_BIT: u64 = 1 << 62;

const SIGN: u16 = 0x8000;

/// A double extended-precision value, exactly as a register holds it.
///
/// Equality is that of the bits, not of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F80 {
    /// The significand with its explicit integer bit (bit 63).
    pub significand: u64,
    /// Sign (bit 15) and biased exponent.
    pub sign_exponent: u16,
}

/// What kind of value an [`F80`] encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Plus or minus zero.
    Zero,
    /// A denormal, or a pseudo-denormal (exponent field 0, integer bit set).
    Denormal,
    /// A normal number.
    Normal,
    /// Plus or minus infinity.
    Infinity,
    /// A NaN that propagates silently.
    QuietNan,
    /// A NaN that raises the invalid-operation exception.
    SignalingNan,
    /// Unnormals, pseudo-infinities and pseudo-NaNs: invalid since the 387 (SDM volume 1, 8.2.2).
    Unsupported,
}

impl Class {
    /// A quiet or a signalling NaN.
    pub const fn is_nan(self) -> bool {
        matches!(self, Class::QuietNan | Class::SignalingNan)
    }
}

impl F80 {
    /// +0.
    pub const ZERO: Self = Self::new(false, 0, 0);
    /// +1.
    pub const ONE: Self = Self::new(false, BIAS as u16, INTEGER_BIT);
    /// Plus infinity.
    pub const INFINITY: Self = Self::new(false, EXPONENT_MAX, INTEGER_BIT);
    /// The real indefinite: the masked response to most invalid operations.
    pub const INDEFINITE: Self = Self::new(true, EXPONENT_MAX, INTEGER_BIT | QUIET_BIT);

    /// Assembles a value from its fields.
    #[inline]
    pub const fn new(negative: bool, exponent: u16, significand: u64) -> Self {
        Self { significand, sign_exponent: exponent | if negative { SIGN } else { 0 } }
    }

    /// The sign bit.
    #[inline]
    pub const fn is_negative(self) -> bool {
        self.sign_exponent & SIGN != 0
    }

    /// The biased exponent field.
    #[inline]
    pub const fn exponent(self) -> u16 {
        self.sign_exponent & !SIGN
    }

    /// The same value with the sign bit as given.
    #[inline]
    pub const fn with_sign(self, negative: bool) -> Self {
        Self::new(negative, self.exponent(), self.significand)
    }

    /// The same value with the sign bit inverted.
    #[inline]
    pub const fn negated(self) -> Self {
        Self { sign_exponent: self.sign_exponent ^ SIGN, ..self }
    }

    /// A normal number: the only kind that the fast paths take.
    #[inline]
    pub const fn is_normal(self) -> bool {
        self.significand & INTEGER_BIT != 0 && self.exponent().wrapping_sub(1) < EXPONENT_MAX - 1
    }

    /// A normal number or a zero.
    #[inline]
    pub const fn is_normal_or_zero(self) -> bool {
        self.is_normal() | ((self.exponent() == 0) & (self.significand == 0))
    }

    /// A denormal or pseudo-denormal: what raises the denormal-operand exception.
    #[inline]
    pub const fn is_denormal(self) -> bool {
        self.exponent() == 0 && self.significand != 0
    }

    /// The kind of value.
    pub const fn class(self) -> Class {
        match (self.exponent(), self.significand) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, s) if s & INTEGER_BIT == 0 => Class::Unsupported,
            (EXPONENT_MAX, INTEGER_BIT) => Class::Infinity,
            (EXPONENT_MAX, s) if s & QUIET_BIT != 0 => Class::QuietNan,
            (EXPONENT_MAX, _) => Class::SignalingNan,
            _ => Class::Normal,
        }
    }

    /// A NaN with its quiet bit set.
    pub const fn quieted(self) -> Self {
        Self { significand: self.significand | QUIET_BIT, ..self }
    }

    /// Exponent (biased, possibly below 1) and significand with the integer bit set, of a finite
    /// number that is not zero.
    #[inline]
    pub const fn normalized(self) -> (i32, u64) {
        let shift = self.significand.leading_zeros();
        let exponent = if self.exponent() == 0 { 1 } else { self.exponent() as i32 };
        (exponent - shift as i32, self.significand.wrapping_shl(shift))
    }

    /// The ten bytes as FLD and FSTP move them.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.significand.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exponent.to_le_bytes());
        bytes
    }

    /// The value that ten bytes in memory hold.
    pub fn from_bytes(bytes: [u8; 10]) -> Self {
        let [a, b, c, d, e, f, g, h, low, high] = bytes;
        Self {
            significand: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sign_exponent: u16::from_le_bytes([low, high]),
        }
    }
}
