//! The instruction table.
//!
//! Forms are named after the letters of the SDM's opcode map (volume 2, appendix A), destination
//! first: in modrm.reg `V` is an XMM, `P` an MMX and `G` a general register; in modrm.rm `W`, `Q`
//! and `E` are the same or memory, `U`, `N` and `R` registers only, `M` memory only. The number is
//! the memory operand's size in bytes, `X` marks 16 bytes that need no alignment, `I` an immediate.

use super::float::*;
use super::integer::*;
use super::shuffle::*;
use super::softfloat::{Double, Single};
use super::{Class, Dest, Form, Op, Prefix, RmKind, Row};
use Class::{Gpr, Imm, Mmx, Xmm};
use Op::{Compare, Float, Mmx as M64, Wide};
use Prefix::{Any, F2, F3, None as NP, P66};

impl Form {
    const fn new(reg: Class, rm: Class, size: u8) -> Self {
        Self { reg, rm, rm_kind: RmKind::Any, size, aligned: false, dest: Dest::Reg, imm: false }
    }

    const fn only(self, rm_kind: RmKind) -> Self {
        Self { rm_kind, ..self }
    }

    const fn aligned(self) -> Self {
        Self { aligned: true, ..self }
    }

    const fn store(self) -> Self {
        Self { dest: Dest::Rm, ..self }
    }

    const fn imm(self) -> Self {
        Self { imm: true, ..self }
    }
}

// Loads and arithmetic on XMM registers.
const V_W16: Form = Form::new(Xmm, Xmm, 16).aligned();
const V_W16I: Form = V_W16.imm();
const V_WX: Form = Form::new(Xmm, Xmm, 16);
const V_W8: Form = Form::new(Xmm, Xmm, 8);
const V_W8I: Form = V_W8.imm();
const V_W4: Form = Form::new(Xmm, Xmm, 4);
const V_W4I: Form = V_W4.imm();
const V_U: Form = V_W16.only(RmKind::Register);
const V_MX: Form = V_WX.only(RmKind::Memory);
const V_M8: Form = V_W8.only(RmKind::Memory);
const V_M4: Form = V_W4.only(RmKind::Memory);
// Stores of them.
const W16_V: Form = V_W16.store();
const WX_V: Form = V_WX.store();
const W8_V: Form = V_W8.store();
const U_V: Form = V_U.store();
const M16_V: Form = W16_V.only(RmKind::Memory);
const M8_V: Form = V_M8.store();
const M4_V: Form = V_M4.store();
// MMX registers.
const P_Q8: Form = Form::new(Mmx, Mmx, 8);
const P_Q8I: Form = P_Q8.imm();
const P_Q4: Form = Form::new(Mmx, Mmx, 4);
const Q8_P: Form = P_Q8.store();
const P_N: Form = P_Q8.only(RmKind::Register);
const M8_P: Form = Q8_P.only(RmKind::Memory);
// Shifts by an immediate.
const U_I: Form = Form::new(Imm, Xmm, 0).only(RmKind::Register).store().imm();
const N_I: Form = Form::new(Imm, Mmx, 0).only(RmKind::Register).store().imm();
// One kind to another.
const V_E4: Form = Form::new(Xmm, Gpr, 4);
const P_E4: Form = Form::new(Mmx, Gpr, 4);
const E4_V: Form = V_E4.store();
const E4_P: Form = P_E4.store();
const V_E2I: Form = Form::new(Xmm, Gpr, 2).imm();
const P_E2I: Form = Form::new(Mmx, Gpr, 2).imm();
const G_U: Form = Form::new(Gpr, Xmm, 0).only(RmKind::Register);
const G_UI: Form = G_U.imm();
const G_N: Form = Form::new(Gpr, Mmx, 0).only(RmKind::Register);
const G_NI: Form = G_N.imm();
const G_W4: Form = Form::new(Gpr, Xmm, 4);
const G_W8: Form = Form::new(Gpr, Xmm, 8);
const V_Q8: Form = Form::new(Xmm, Mmx, 8);
const V_N: Form = V_Q8.only(RmKind::Register);
const P_W16: Form = Form::new(Mmx, Xmm, 16).aligned();
const P_W8: Form = Form::new(Mmx, Xmm, 8);
const P_U: Form = P_W8.only(RmKind::Register);
const M4_G: Form = Form::new(Gpr, Gpr, 4).only(RmKind::Memory).store();
// No operands, or only memory.
const NOTHING: Form = Form::new(Class::None, Class::None, 0).only(RmKind::None);
const ANY: Form = NOTHING.only(RmKind::Any);
const REG: Form = NOTHING.only(RmKind::Register);
const M1: Form = Form::new(Class::None, Class::None, 1).only(RmKind::Memory);
const M4: Form = Form::new(Class::None, Class::None, 4).only(RmKind::Memory);
const M4_STORE: Form = M4.store();

const fn row(prefix: Prefix, opcode: u8, name: &'static str, form: Form, op: Op) -> Row {
    Row { prefix, opcode, extension: None, name, form, op }
}

impl Row {
    /// The opcode is extended by modrm.reg.
    const fn reg(self, extension: u8) -> Self {
        Self { extension: Some(extension), ..self }
    }
}

/// Every instruction of the family, in the order of opcodes.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    row(NP,  0x10, "movups",     V_WX,    Op::Copy),
    row(P66, 0x10, "movupd",     V_WX,    Op::Copy),
    row(F3,  0x10, "movss",      V_U,     Wide(merge32)),
    row(F3,  0x10, "movss",      V_M4,    Op::Copy),
    row(F2,  0x10, "movsd",      V_U,     Wide(merge64)),
    row(F2,  0x10, "movsd",      V_M8,    Op::Copy),
    row(NP,  0x11, "movups",     WX_V,    Op::Copy),
    row(P66, 0x11, "movupd",     WX_V,    Op::Copy),
    row(F3,  0x11, "movss",      U_V,     Wide(merge32)),
    row(F3,  0x11, "movss",      M4_V,    Op::Copy),
    row(F2,  0x11, "movsd",      U_V,     Wide(merge64)),
    row(F2,  0x11, "movsd",      M8_V,    Op::Copy),
    row(NP,  0x12, "movhlps",    V_U,     Wide(movhlps)),
    row(NP,  0x12, "movlps",     V_M8,    Wide(merge64)),
    row(P66, 0x12, "movlpd",     V_M8,    Wide(merge64)),
    row(F3,  0x12, "movsldup",   V_W16,   Wide(movsldup)),
    row(F2,  0x12, "movddup",    V_W8,    Wide(movddup)),
    row(NP,  0x13, "movlps",     M8_V,    Op::Copy),
    row(P66, 0x13, "movlpd",     M8_V,    Op::Copy),
    row(NP,  0x14, "unpcklps",   V_W16,   Wide(unpack_low::<u128, 4>)),
    row(P66, 0x14, "unpcklpd",   V_W16,   Wide(unpack_low::<u128, 8>)),
    row(NP,  0x15, "unpckhps",   V_W16,   Wide(unpack_high::<u128, 4>)),
    row(P66, 0x15, "unpckhpd",   V_W16,   Wide(unpack_high::<u128, 8>)),
    row(NP,  0x16, "movlhps",    V_U,     Wide(low_to_high)),
    row(NP,  0x16, "movhps",     V_M8,    Wide(low_to_high)),
    row(P66, 0x16, "movhpd",     V_M8,    Wide(low_to_high)),
    row(F3,  0x16, "movshdup",   V_W16,   Wide(movshdup)),
    row(NP,  0x17, "movhps",     M8_V,    Wide(copy_high)),
    row(P66, 0x17, "movhpd",     M8_V,    Wide(copy_high)),
    // The four PREFETCHes; everything else at 18 is a reserved NOP.
    row(Any, 0x18, "prefetch",   ANY,     Op::Nothing),
    row(NP,  0x28, "movaps",     V_W16,   Op::Copy),
    row(P66, 0x28, "movapd",     V_W16,   Op::Copy),
    row(NP,  0x29, "movaps",     W16_V,   Op::Copy),
    row(P66, 0x29, "movapd",     W16_V,   Op::Copy),
    row(NP,  0x2a, "cvtpi2ps",   V_Q8,    Float(from_int::<Single, 2>)),
    // From memory, CVTPI2PD leaves the x87 unit alone.
    row(P66, 0x2a, "cvtpi2pd",   V_N,     Float(from_int::<Double, 2>)),
    row(P66, 0x2a, "cvtpi2pd",   V_M8,    Float(from_int::<Double, 2>)),
    row(F3,  0x2a, "cvtsi2ss",   V_E4,    Float(from_int::<Single, 1>)),
    row(F2,  0x2a, "cvtsi2sd",   V_E4,    Float(from_int::<Double, 1>)),
    row(NP,  0x2b, "movntps",    M16_V,   Op::Copy),
    row(P66, 0x2b, "movntpd",    M16_V,   Op::Copy),
    row(NP,  0x2c, "cvttps2pi",  P_W8,    Float(truncate_int::<Single, 2>)),
    row(P66, 0x2c, "cvttpd2pi",  P_W16,   Float(truncate_int::<Double, 2>)),
    row(F3,  0x2c, "cvttss2si",  G_W4,    Float(truncate_int::<Single, 1>)),
    row(F2,  0x2c, "cvttsd2si",  G_W8,    Float(truncate_int::<Double, 1>)),
    row(NP,  0x2d, "cvtps2pi",   P_W8,    Float(round_int::<Single, 2>)),
    row(P66, 0x2d, "cvtpd2pi",   P_W16,   Float(round_int::<Double, 2>)),
    row(F3,  0x2d, "cvtss2si",   G_W4,    Float(round_int::<Single, 1>)),
    row(F2,  0x2d, "cvtsd2si",   G_W8,    Float(round_int::<Double, 1>)),
    row(NP,  0x2e, "ucomiss",    V_W4,    Compare(ucomiss)),
    row(P66, 0x2e, "ucomisd",    V_W8,    Compare(ucomisd)),
    row(NP,  0x2f, "comiss",     V_W4,    Compare(comiss)),
    row(P66, 0x2f, "comisd",     V_W8,    Compare(comisd)),

    row(NP,  0x50, "movmskps",   G_U,     Wide(movmskps)),
    row(P66, 0x50, "movmskpd",   G_U,     Wide(movmskpd)),
    row(NP,  0x51, "sqrtps",     V_W16,   Float(sqrtps)),
    row(P66, 0x51, "sqrtpd",     V_W16,   Float(sqrtpd)),
    row(F3,  0x51, "sqrtss",     V_W4,    Float(sqrtss)),
    row(F2,  0x51, "sqrtsd",     V_W8,    Float(sqrtsd)),
    row(NP,  0x52, "rsqrtps",    V_W16,   Float(rsqrt::<4>)),
    row(F3,  0x52, "rsqrtss",    V_W4,    Float(rsqrt::<1>)),
    row(NP,  0x53, "rcpps",      V_W16,   Float(rcp::<4>)),
    row(F3,  0x53, "rcpss",      V_W4,    Float(rcp::<1>)),
    row(NP,  0x54, "andps",      V_W16,   Wide(pand)),
    row(P66, 0x54, "andpd",      V_W16,   Wide(pand)),
    row(NP,  0x55, "andnps",     V_W16,   Wide(pandn)),
    row(P66, 0x55, "andnpd",     V_W16,   Wide(pandn)),
    row(NP,  0x56, "orps",       V_W16,   Wide(por)),
    row(P66, 0x56, "orpd",       V_W16,   Wide(por)),
    row(NP,  0x57, "xorps",      V_W16,   Wide(pxor)),
    row(P66, 0x57, "xorpd",      V_W16,   Wide(pxor)),
    row(NP,  0x58, "addps",      V_W16,   Float(addps)),
    row(P66, 0x58, "addpd",      V_W16,   Float(addpd)),
    row(F3,  0x58, "addss",      V_W4,    Float(addss)),
    row(F2,  0x58, "addsd",      V_W8,    Float(addsd)),
    row(NP,  0x59, "mulps",      V_W16,   Float(mulps)),
    row(P66, 0x59, "mulpd",      V_W16,   Float(mulpd)),
    row(F3,  0x59, "mulss",      V_W4,    Float(mulss)),
    row(F2,  0x59, "mulsd",      V_W8,    Float(mulsd)),
    row(NP,  0x5a, "cvtps2pd",   V_W8,    Float(cvtps2pd)),
    row(P66, 0x5a, "cvtpd2ps",   V_W16,   Float(cvtpd2ps)),
    row(F3,  0x5a, "cvtss2sd",   V_W4,    Float(cvtss2sd)),
    row(F2,  0x5a, "cvtsd2ss",   V_W8,    Float(cvtsd2ss)),
    row(NP,  0x5b, "cvtdq2ps",   V_W16,   Float(from_int::<Single, 4>)),
    row(P66, 0x5b, "cvtps2dq",   V_W16,   Float(round_int::<Single, 4>)),
    row(F3,  0x5b, "cvttps2dq",  V_W16,   Float(truncate_int::<Single, 4>)),
    row(NP,  0x5c, "subps",      V_W16,   Float(subps)),
    row(P66, 0x5c, "subpd",      V_W16,   Float(subpd)),
    row(F3,  0x5c, "subss",      V_W4,    Float(subss)),
    row(F2,  0x5c, "subsd",      V_W8,    Float(subsd)),
    row(NP,  0x5d, "minps",      V_W16,   Float(minps)),
    row(P66, 0x5d, "minpd",      V_W16,   Float(minpd)),
    row(F3,  0x5d, "minss",      V_W4,    Float(minss)),
    row(F2,  0x5d, "minsd",      V_W8,    Float(minsd)),
    row(NP,  0x5e, "divps",      V_W16,   Float(divps)),
    row(P66, 0x5e, "divpd",      V_W16,   Float(divpd)),
    row(F3,  0x5e, "divss",      V_W4,    Float(divss)),
    row(F2,  0x5e, "divsd",      V_W8,    Float(divsd)),
    row(NP,  0x5f, "maxps",      V_W16,   Float(maxps)),
    row(P66, 0x5f, "maxpd",      V_W16,   Float(maxpd)),
    row(F3,  0x5f, "maxss",      V_W4,    Float(maxss)),
    row(F2,  0x5f, "maxsd",      V_W8,    Float(maxsd)),

    row(NP,  0x60, "punpcklbw",  P_Q4,    M64(unpack_low::<u64, 1>)),
    row(P66, 0x60, "punpcklbw",  V_W16,   Wide(unpack_low::<u128, 1>)),
    row(NP,  0x61, "punpcklwd",  P_Q4,    M64(unpack_low::<u64, 2>)),
    row(P66, 0x61, "punpcklwd",  V_W16,   Wide(unpack_low::<u128, 2>)),
    row(NP,  0x62, "punpckldq",  P_Q4,    M64(unpack_low::<u64, 4>)),
    row(P66, 0x62, "punpckldq",  V_W16,   Wide(unpack_low::<u128, 4>)),
    row(NP,  0x63, "packsswb",   P_Q8,    M64(packsswb)),
    row(P66, 0x63, "packsswb",   V_W16,   Wide(packsswb)),
    row(NP,  0x64, "pcmpgtb",    P_Q8,    M64(pcmpgtb)),
    row(P66, 0x64, "pcmpgtb",    V_W16,   Wide(pcmpgtb)),
    row(NP,  0x65, "pcmpgtw",    P_Q8,    M64(pcmpgtw)),
    row(P66, 0x65, "pcmpgtw",    V_W16,   Wide(pcmpgtw)),
    row(NP,  0x66, "pcmpgtd",    P_Q8,    M64(pcmpgtd)),
    row(P66, 0x66, "pcmpgtd",    V_W16,   Wide(pcmpgtd)),
    row(NP,  0x67, "packuswb",   P_Q8,    M64(packuswb)),
    row(P66, 0x67, "packuswb",   V_W16,   Wide(packuswb)),
    row(NP,  0x68, "punpckhbw",  P_Q8,    M64(unpack_high::<u64, 1>)),
    row(P66, 0x68, "punpckhbw",  V_W16,   Wide(unpack_high::<u128, 1>)),
    row(NP,  0x69, "punpckhwd",  P_Q8,    M64(unpack_high::<u64, 2>)),
    row(P66, 0x69, "punpckhwd",  V_W16,   Wide(unpack_high::<u128, 2>)),
    row(NP,  0x6a, "punpckhdq",  P_Q8,    M64(unpack_high::<u64, 4>)),
    row(P66, 0x6a, "punpckhdq",  V_W16,   Wide(unpack_high::<u128, 4>)),
    row(NP,  0x6b, "packssdw",   P_Q8,    M64(packssdw)),
    row(P66, 0x6b, "packssdw",   V_W16,   Wide(packssdw)),
    row(P66, 0x6c, "punpcklqdq", V_W16,   Wide(unpack_low::<u128, 8>)),
    row(P66, 0x6d, "punpckhqdq", V_W16,   Wide(unpack_high::<u128, 8>)),
    row(NP,  0x6e, "movd",       P_E4,    Op::Copy),
    row(P66, 0x6e, "movd",       V_E4,    Op::Copy),
    row(NP,  0x6f, "movq",       P_Q8,    M64(copy)),
    row(P66, 0x6f, "movdqa",     V_W16,   Op::Copy),
    row(F3,  0x6f, "movdqu",     V_WX,    Op::Copy),
    row(NP,  0x70, "pshufw",     P_Q8I,   M64(pshufw)),
    row(P66, 0x70, "pshufd",     V_W16I,  Wide(pshufd)),
    row(F3,  0x70, "pshufhw",    V_W16I,  Wide(pshufhw)),
    row(F2,  0x70, "pshuflw",    V_W16I,  Wide(pshuflw)),
    row(NP,  0x71, "psrlw",      N_I,     M64(psrlw)).reg(2),
    row(P66, 0x71, "psrlw",      U_I,     Wide(psrlw)).reg(2),
    row(NP,  0x71, "psraw",      N_I,     M64(psraw)).reg(4),
    row(P66, 0x71, "psraw",      U_I,     Wide(psraw)).reg(4),
    row(NP,  0x71, "psllw",      N_I,     M64(psllw)).reg(6),
    row(P66, 0x71, "psllw",      U_I,     Wide(psllw)).reg(6),
    row(NP,  0x72, "psrld",      N_I,     M64(psrld)).reg(2),
    row(P66, 0x72, "psrld",      U_I,     Wide(psrld)).reg(2),
    row(NP,  0x72, "psrad",      N_I,     M64(psrad)).reg(4),
    row(P66, 0x72, "psrad",      U_I,     Wide(psrad)).reg(4),
    row(NP,  0x72, "pslld",      N_I,     M64(pslld)).reg(6),
    row(P66, 0x72, "pslld",      U_I,     Wide(pslld)).reg(6),
    row(NP,  0x73, "psrlq",      N_I,     M64(psrlq)).reg(2),
    row(P66, 0x73, "psrlq",      U_I,     Wide(psrlq)).reg(2),
    row(P66, 0x73, "psrldq",     U_I,     Wide(psrldq)).reg(3),
    row(NP,  0x73, "psllq",      N_I,     M64(psllq)).reg(6),
    row(P66, 0x73, "psllq",      U_I,     Wide(psllq)).reg(6),
    row(P66, 0x73, "pslldq",     U_I,     Wide(pslldq)).reg(7),
    row(NP,  0x74, "pcmpeqb",    P_Q8,    M64(pcmpeqb)),
    row(P66, 0x74, "pcmpeqb",    V_W16,   Wide(pcmpeqb)),
    row(NP,  0x75, "pcmpeqw",    P_Q8,    M64(pcmpeqw)),
    row(P66, 0x75, "pcmpeqw",    V_W16,   Wide(pcmpeqw)),
    row(NP,  0x76, "pcmpeqd",    P_Q8,    M64(pcmpeqd)),
    row(P66, 0x76, "pcmpeqd",    V_W16,   Wide(pcmpeqd)),
    row(NP,  0x77, "emms",       NOTHING, Op::Emms),
    row(P66, 0x7c, "haddpd",     V_W16,   Float(haddpd)),
    row(F2,  0x7c, "haddps",     V_W16,   Float(haddps)),
    row(P66, 0x7d, "hsubpd",     V_W16,   Float(hsubpd)),
    row(F2,  0x7d, "hsubps",     V_W16,   Float(hsubps)),
    row(NP,  0x7e, "movd",       E4_P,    Op::Copy),
    row(P66, 0x7e, "movd",       E4_V,    Op::Copy),
    row(F3,  0x7e, "movq",       V_W8,    Wide(copy_low)),
    row(NP,  0x7f, "movq",       Q8_P,    M64(copy)),
    row(P66, 0x7f, "movdqa",     W16_V,   Op::Copy),
    row(F3,  0x7f, "movdqu",     WX_V,    Op::Copy),

    row(NP,  0xae, "ldmxcsr",    M4,      Op::LoadMxcsr).reg(2),
    row(NP,  0xae, "stmxcsr",    M4_STORE, Op::StoreMxcsr).reg(3),
    row(NP,  0xae, "lfence",     REG,     Op::Nothing).reg(5),
    row(NP,  0xae, "mfence",     REG,     Op::Nothing).reg(6),
    row(NP,  0xae, "sfence",     REG,     Op::Nothing).reg(7),
    row(NP,  0xae, "clflush",    M1,      Op::Flush).reg(7),

    row(NP,  0xc2, "cmpps",      V_W16I,  Float(cmp_single::<4>)),
    row(P66, 0xc2, "cmppd",      V_W16I,  Float(cmp_double::<2>)),
    row(F3,  0xc2, "cmpss",      V_W4I,   Float(cmp_single::<1>)),
    row(F2,  0xc2, "cmpsd",      V_W8I,   Float(cmp_double::<1>)),
    row(NP,  0xc3, "movnti",     M4_G,    Op::Copy),
    row(NP,  0xc4, "pinsrw",     P_E2I,   Wide(pinsrw::<4>)),
    row(P66, 0xc4, "pinsrw",     V_E2I,   Wide(pinsrw::<8>)),
    row(NP,  0xc5, "pextrw",     G_NI,    Wide(pextrw::<4>)),
    row(P66, 0xc5, "pextrw",     G_UI,    Wide(pextrw::<8>)),
    row(NP,  0xc6, "shufps",     V_W16I,  Wide(shufps)),
    row(P66, 0xc6, "shufpd",     V_W16I,  Wide(shufpd)),

    row(P66, 0xd0, "addsubpd",   V_W16,   Float(addsubpd)),
    row(F2,  0xd0, "addsubps",   V_W16,   Float(addsubps)),
    row(NP,  0xd1, "psrlw",      P_Q8,    M64(psrlw)),
    row(P66, 0xd1, "psrlw",      V_W16,   Wide(psrlw)),
    row(NP,  0xd2, "psrld",      P_Q8,    M64(psrld)),
    row(P66, 0xd2, "psrld",      V_W16,   Wide(psrld)),
    row(NP,  0xd3, "psrlq",      P_Q8,    M64(psrlq)),
    row(P66, 0xd3, "psrlq",      V_W16,   Wide(psrlq)),
    row(NP,  0xd4, "paddq",      P_Q8,    M64(paddq)),
    row(P66, 0xd4, "paddq",      V_W16,   Wide(paddq)),
    row(NP,  0xd5, "pmullw",     P_Q8,    M64(pmullw)),
    row(P66, 0xd5, "pmullw",     V_W16,   Wide(pmullw)),
    row(P66, 0xd6, "movq",       W8_V,    Wide(copy_low)),
    row(F3,  0xd6, "movq2dq",    V_N,     Op::Copy),
    row(F2,  0xd6, "movdq2q",    P_U,     Op::Copy),
    row(NP,  0xd7, "pmovmskb",   G_N,     Wide(byte_signs)),
    row(P66, 0xd7, "pmovmskb",   G_U,     Wide(byte_signs)),
    row(NP,  0xd8, "psubusb",    P_Q8,    M64(psubusb)),
    row(P66, 0xd8, "psubusb",    V_W16,   Wide(psubusb)),
    row(NP,  0xd9, "psubusw",    P_Q8,    M64(psubusw)),
    row(P66, 0xd9, "psubusw",    V_W16,   Wide(psubusw)),
    row(NP,  0xda, "pminub",     P_Q8,    M64(pminub)),
    row(P66, 0xda, "pminub",     V_W16,   Wide(pminub)),
    row(NP,  0xdb, "pand",       P_Q8,    M64(pand)),
    row(P66, 0xdb, "pand",       V_W16,   Wide(pand)),
    row(NP,  0xdc, "paddusb",    P_Q8,    M64(paddusb)),
    row(P66, 0xdc, "paddusb",    V_W16,   Wide(paddusb)),
    row(NP,  0xdd, "paddusw",    P_Q8,    M64(paddusw)),
    row(P66, 0xdd, "paddusw",    V_W16,   Wide(paddusw)),
    row(NP,  0xde, "pmaxub",     P_Q8,    M64(pmaxub)),
    row(P66, 0xde, "pmaxub",     V_W16,   Wide(pmaxub)),
    row(NP,  0xdf, "pandn",      P_Q8,    M64(pandn)),
    row(P66, 0xdf, "pandn",      V_W16,   Wide(pandn)),
    row(NP,  0xe0, "pavgb",      P_Q8,    M64(pavgb)),
    row(P66, 0xe0, "pavgb",      V_W16,   Wide(pavgb)),
    row(NP,  0xe1, "psraw",      P_Q8,    M64(psraw)),
    row(P66, 0xe1, "psraw",      V_W16,   Wide(psraw)),
    row(NP,  0xe2, "psrad",      P_Q8,    M64(psrad)),
    row(P66, 0xe2, "psrad",      V_W16,   Wide(psrad)),
    row(NP,  0xe3, "pavgw",      P_Q8,    M64(pavgw)),
    row(P66, 0xe3, "pavgw",      V_W16,   Wide(pavgw)),
    row(NP,  0xe4, "pmulhuw",    P_Q8,    M64(pmulhuw)),
    row(P66, 0xe4, "pmulhuw",    V_W16,   Wide(pmulhuw)),
    row(NP,  0xe5, "pmulhw",     P_Q8,    M64(pmulhw)),
    row(P66, 0xe5, "pmulhw",     V_W16,   Wide(pmulhw)),
    row(P66, 0xe6, "cvttpd2dq",  V_W16,   Float(truncate_int::<Double, 2>)),
    row(F3,  0xe6, "cvtdq2pd",   V_W8,    Float(from_int::<Double, 2>)),
    row(F2,  0xe6, "cvtpd2dq",   V_W16,   Float(round_int::<Double, 2>)),
    row(NP,  0xe7, "movntq",     M8_P,    M64(copy)),
    row(P66, 0xe7, "movntdq",    M16_V,   Op::Copy),
    row(NP,  0xe8, "psubsb",     P_Q8,    M64(psubsb)),
    row(P66, 0xe8, "psubsb",     V_W16,   Wide(psubsb)),
    row(NP,  0xe9, "psubsw",     P_Q8,    M64(psubsw)),
    row(P66, 0xe9, "psubsw",     V_W16,   Wide(psubsw)),
    row(NP,  0xea, "pminsw",     P_Q8,    M64(pminsw)),
    row(P66, 0xea, "pminsw",     V_W16,   Wide(pminsw)),
    row(NP,  0xeb, "por",        P_Q8,    M64(por)),
    row(P66, 0xeb, "por",        V_W16,   Wide(por)),
    row(NP,  0xec, "paddsb",     P_Q8,    M64(paddsb)),
    row(P66, 0xec, "paddsb",     V_W16,   Wide(paddsb)),
    row(NP,  0xed, "paddsw",     P_Q8,    M64(paddsw)),
    row(P66, 0xed, "paddsw",     V_W16,   Wide(paddsw)),
    row(NP,  0xee, "pmaxsw",     P_Q8,    M64(pmaxsw)),
    row(P66, 0xee, "pmaxsw",     V_W16,   Wide(pmaxsw)),
    row(NP,  0xef, "pxor",       P_Q8,    M64(pxor)),
    row(P66, 0xef, "pxor",       V_W16,   Wide(pxor)),
    row(F2,  0xf0, "lddqu",      V_MX,    Op::Copy),
    row(NP,  0xf1, "psllw",      P_Q8,    M64(psllw)),
    row(P66, 0xf1, "psllw",      V_W16,   Wide(psllw)),
    row(NP,  0xf2, "pslld",      P_Q8,    M64(pslld)),
    row(P66, 0xf2, "pslld",      V_W16,   Wide(pslld)),
    row(NP,  0xf3, "psllq",      P_Q8,    M64(psllq)),
    row(P66, 0xf3, "psllq",      V_W16,   Wide(psllq)),
    row(NP,  0xf4, "pmuludq",    P_Q8,    M64(pmuludq)),
    row(P66, 0xf4, "pmuludq",    V_W16,   Wide(pmuludq)),
    row(NP,  0xf5, "pmaddwd",    P_Q8,    M64(pmaddwd)),
    row(P66, 0xf5, "pmaddwd",    V_W16,   Wide(pmaddwd)),
    row(NP,  0xf6, "psadbw",     P_Q8,    M64(psadbw)),
    row(P66, 0xf6, "psadbw",     V_W16,   Wide(psadbw)),
    row(NP,  0xf7, "maskmovq",   P_N,     Op::MaskedStore),
    row(P66, 0xf7, "maskmovdqu", V_U,     Op::MaskedStore),
    row(NP,  0xf8, "psubb",      P_Q8,    M64(psubb)),
    row(P66, 0xf8, "psubb",      V_W16,   Wide(psubb)),
    row(NP,  0xf9, "psubw",      P_Q8,    M64(psubw)),
    row(P66, 0xf9, "psubw",      V_W16,   Wide(psubw)),
    row(NP,  0xfa, "psubd",      P_Q8,    M64(psubd)),
    row(P66, 0xfa, "psubd",      V_W16,   Wide(psubd)),
    row(NP,  0xfb, "psubq",      P_Q8,    M64(psubq)),
    row(P66, 0xfb, "psubq",      V_W16,   Wide(psubq)),
    row(NP,  0xfc, "paddb",      P_Q8,    M64(paddb)),
    row(P66, 0xfc, "paddb",      V_W16,   Wide(paddb)),
    row(NP,  0xfd, "paddw",      P_Q8,    M64(paddw)),
    row(P66, 0xfd, "paddw",      V_W16,   Wide(paddw)),
    row(NP,  0xfe, "paddd",      P_Q8,    M64(paddd)),
    row(P66, 0xfe, "paddd",      V_W16,   Wide(paddd)),
];
