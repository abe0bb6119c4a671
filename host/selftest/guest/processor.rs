//! The processor: what it says of itself, and whether it calculates.

use iced_x86::code_asm::*;

use crate::guest::{BUFFER, Guest, Result};

/// EFLAGS: CPUID is there if this can be changed.
const EFLAGS_ID: u32 = 1 << 21;
/// CPUID leaf 1, EDX and ECX.
const FPU: u32 = 1 << 0;
const SSE: u32 = 1 << 25;
const SSE2: u32 = 1 << 26;
const SSE3: u32 = 1 << 0;
const CR0_EMULATE: u32 = 1 << 2;
const CR0_MONITOR: u32 = 1 << 1;
/// The system saves the registers of SSE and handles their exceptions, which lets them be used.
const CR4_SSE: u32 = 0x600;

/// The name, and integers of 64 bits in two halves.
pub fn integer(g: &mut Guest) -> Result {
    g.pushfd()?;
    g.pop(eax)?;
    g.mov(ecx, eax)?;
    g.xor(eax, EFLAGS_ID)?;
    g.push(eax)?;
    g.popfd()?;
    g.pushfd()?;
    g.pop(eax)?;
    g.xor(eax, ecx)?;
    g.and(eax, EFLAGS_ID)?;
    g.cmp(eax, EFLAGS_ID)?;
    g.fail_unless_equal("it has no CPUID")?;

    let name = g.bytes(&[0; 13]);
    g.xor(eax, eax)?;
    g.cpuid()?;
    for (offset, part) in [(0, ebx), (4, edx), (8, ecx)] {
        g.mov(dword_ptr(name + offset), part)?;
    }
    g.mov(esi, name)?;
    g.run(|to| to.put)?;
    g.mov(eax, 1)?;
    g.cpuid()?;
    g.mov(ebx, eax)?;
    for (text, shift) in [(", family ", 8), (", model ", 4)] {
        g.put(text)?;
        g.mov(eax, ebx)?;
        g.shr(eax, shift)?;
        g.and(eax, 15)?;
        g.put_decimal()?;
    }

    // Of each pair: sum and difference with their carries, product and quotient of the low halves.
    const PAIRS: [(u64, u64); 5] = [
        (0x0000_0001_ffff_ffff, 1),
        (0xffff_ffff_ffff_ffff, 1),
        (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
        (0x8000_0000_0000_0000, 0x8000_0000_ffff_ffff),
        (0, 0xffff_ffff_0000_0003),
    ];
    let mut rows = Vec::new();
    for (a, b) in PAIRS {
        let (sum, carry) = a.overflowing_add(b);
        let (difference, borrow) = a.overflowing_sub(b);
        let product = u64::from(a as u32) * u64::from(b as u32);
        let halves = |value: u64| [value as u32, (value >> 32) as u32];
        let mask = |flag: bool| if flag { u32::MAX } else { 0 };
        rows.extend([halves(a), halves(b), halves(sum), halves(difference), halves(product)].concat());
        rows.extend([mask(carry), mask(borrow)]);
    }
    const ROW: i32 = 4 * 12;
    let end = 4 * rows.len() as u32;
    let rows = g.words(&rows);
    g.mov(esi, rows)?;
    let next = g.mark()?;
    for (result, mask, subtracts) in [(16, 40, false), (24, 44, true)] {
        g.mov(eax, dword_ptr(esi))?;
        g.mov(edx, dword_ptr(esi + 4))?;
        if subtracts {
            g.sub(eax, dword_ptr(esi + 8))?;
            g.sbb(edx, dword_ptr(esi + 12))?;
        } else {
            g.add(eax, dword_ptr(esi + 8))?;
            g.adc(edx, dword_ptr(esi + 12))?;
        }
        g.sbb(ecx, ecx)?;
        // All three at once: the differences, which are 0, together.
        g.sub(eax, dword_ptr(esi + result))?;
        g.sub(edx, dword_ptr(esi + result + 4))?;
        g.sub(ecx, dword_ptr(esi + mask))?;
        g.or(eax, edx)?;
        g.or(eax, ecx)?;
        g.fail_unless_equal("; it adds wrongly")?;
    }
    g.mov(eax, dword_ptr(esi))?;
    g.mul(dword_ptr(esi + 8))?;
    g.mov(ecx, edx)?;
    g.mov(ebx, eax)?;
    g.div(dword_ptr(esi + 8))?;
    g.sub(eax, dword_ptr(esi))?;
    g.sub(ebx, dword_ptr(esi + 32))?;
    g.sub(ecx, dword_ptr(esi + 36))?;
    g.or(eax, ebx)?;
    g.or(eax, ecx)?;
    g.or(eax, edx)?;
    g.fail_unless_equal("; it multiplies or divides wrongly")?;
    g.add(esi, ROW)?;
    g.cmp(esi, rows + end)?;
    g.jb(next)
}

/// Jumps to the verdict that it is not there, unless CPUID says that it is.
fn needs(g: &mut Guest, feature: u32) -> Result {
    g.mov(eax, 1)?;
    g.cpuid()?;
    g.and(edx, feature)?;
    g.cmp(edx, feature)?;
    g.absent_unless_equal("the processor has none")
}

/// Compares the bytes at [`BUFFER`] with those that are right.
fn compare(g: &mut Guest, right: &[u8], reason: &str) -> Result {
    let at = g.bytes(right);
    g.mov(esi, BUFFER)?;
    g.mov(edi, at)?;
    g.mov(ecx, right.len() as u32)?;
    g.repe().cmpsb()?;
    g.fail_unless_equal(reason)
}

/// Doubles, and π in all of the 80 bits.
pub fn x87(g: &mut Guest) -> Result {
    /// Results are rounded to doubles, as those of the language that the expected ones are calculated in.
    const DOUBLES: u32 = 0x27f;
    const A: f64 = 2.0;
    const B: f64 = -3.7e-5;
    /// The mantissa, whose highest bit is written here, and the exponent.
    const PI: (u64, u16) = (0xc90f_daa2_2168_c235, 0x4000);
    needs(g, FPU)?;
    let operands = g.bytes(&[A.to_le_bytes(), B.to_le_bytes()].concat());
    let control = g.words(&[DOUBLES]);
    type Operation = fn(&mut Guest, AsmMemoryOperand) -> Result;
    let operations: [(Operation, f64, &str); 5] = [
        (|g, b| g.fadd(b), A + B, "it adds wrongly"),
        (|g, b| g.fsub(b), A - B, "it subtracts wrongly"),
        (|g, b| g.fmul(b), A * B, "it multiplies wrongly"),
        (|g, b| g.fdiv(b), A / B, "it divides wrongly"),
        (|g, _| g.fsqrt(), A.sqrt(), "its square root is wrong"),
    ];
    g.fninit()?;
    g.fldcw(word_ptr(control))?;
    for (operation, right, reason) in operations {
        g.fld(qword_ptr(operands))?;
        operation(g, qword_ptr(operands + 8))?;
        g.fstp(qword_ptr(BUFFER))?;
        compare(g, &right.to_le_bytes(), reason)?;
    }
    g.fninit()?;
    g.fldpi()?;
    g.fstp(tbyte_ptr(BUFFER))?;
    compare(g, &[&PI.0.to_le_bytes()[..], &PI.1.to_le_bytes()].concat(), "its pi is wrong")?;
    g.put("calculates with doubles, has pi in 80 bits")
}

/// Four numbers at a time.
pub fn sse(g: &mut Guest) -> Result {
    const A: [f32; 4] = [2.0, 0.1, 1e30, 3.0];
    const B: [f32; 4] = [-0.3, 7.0, 1e-5, 3.0];
    needs(g, SSE)?;
    g.mov(eax, cr0)?;
    g.and(eax, !CR0_EMULATE)?;
    g.or(eax, CR0_MONITOR)?;
    g.mov(cr0, eax)?;
    g.mov(eax, cr4)?;
    g.or(eax, CR4_SSE)?;
    g.mov(cr4, eax)?;

    let in_memory = |numbers: [f32; 4]| numbers.map(f32::to_le_bytes).concat();
    let (a, b) = (g.bytes(&in_memory(A)), g.bytes(&in_memory(B)));
    type Operation = fn(&mut Guest) -> Result;
    type Expected = fn(f32, f32) -> f32;
    let operations: [(Operation, Expected, &str); 5] = [
        (|g| g.addps(xmm0, xmm1), |a, b| a + b, "it adds wrongly"),
        (|g| g.subps(xmm0, xmm1), |a, b| a - b, "it subtracts wrongly"),
        (|g| g.mulps(xmm0, xmm1), |a, b| a * b, "it multiplies wrongly"),
        (|g| g.divps(xmm0, xmm1), |a, b| a / b, "it divides wrongly"),
        (|g| g.sqrtps(xmm0, xmm0), |a, _| a.sqrt(), "its square root is wrong"),
    ];
    for (operation, right, reason) in operations {
        g.movups(xmm0, xmmword_ptr(a))?;
        g.movups(xmm1, xmmword_ptr(b))?;
        operation(g)?;
        g.movups(xmmword_ptr(BUFFER), xmm0)?;
        let right: [f32; 4] = std::array::from_fn(|i| right(A[i], B[i]));
        compare(g, &in_memory(right), reason)?;
    }
    g.put("four numbers at a time; SSE")?;
    g.mov(eax, 1)?;
    g.cpuid()?;
    for (register, feature, text) in [(edx, SSE2, ", SSE2"), (ecx, SSE3, ", SSE3")] {
        let missing = g.create_label();
        g.test(register, feature)?;
        g.je(missing)?;
        g.put(text)?;
        g.here(missing)?;
    }
    Ok(())
}
