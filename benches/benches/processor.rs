//! How long the processor takes for each of its small guests: `cargo bench -p env86-benches`, or with
//! a part of a name behind `--` only those.

// Criterion's macros make functions, and give them no documentation.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use env86_benches::kernels::{Bench, KERNELS};

/// Instructions in one measured pass.
const PASS: u64 = 50_000;

fn processor(criterion: &mut Criterion) {
    for kernel in KERNELS {
        let (family, name) = kernel.name.split_once('/').unwrap_or(("", kernel.name));
        let mut group = criterion.benchmark_group(family);
        let mut bench = Bench::new(kernel);
        // Decodes what is to be decoded, and may be more than was asked for.
        group.throughput(Throughput::Elements(bench.run(PASS)));
        group.bench_function(name, |b| b.iter(|| bench.run(PASS)));
        group.finish();
    }
}

criterion_group!(benches, processor);
criterion_main!(benches);
