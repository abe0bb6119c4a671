//! The command line: `[--cases N] [--row N] [--seed S] [--only NAME] [--group GROUP] [--show N] [--write FILE]`,
//! or `--fuzz blocks|decoder [--minutes N] [--seed S]`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use env86_conformance::run::{Bench, Plan};
use env86_conformance::{fuzz, generate, native};

struct Options {
    plan: Plan,
    /// Cases for all forms of a row of the summary together, at least.
    row: u32,
    only: Option<String>,
    group: Option<String>,
    write: Option<String>,
    fuzz: Option<Fuzzer>,
    minutes: u64,
}

#[derive(Clone, Copy)]
enum Fuzzer {
    Blocks,
    Decoder,
}

fn options() -> Result<Options, String> {
    let mut o = Options {
        plan: Plan { cases: 1000, seed: 1, show: 1 },
        row: 0,
        only: None,
        group: None,
        write: None,
        fuzz: None,
        minutes: 60,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let number = || value.parse().map_err(|e| format!("{arg} {value}: {e}"));
        match arg.as_str() {
            "--cases" => o.plan.cases = number()?,
            "--seed" => o.plan.seed = number()?.into(),
            "--show" => o.plan.show = number()?,
            "--fuzz" if value == "blocks" => o.fuzz = Some(Fuzzer::Blocks),
            "--fuzz" if value == "decoder" => o.fuzz = Some(Fuzzer::Decoder),
            "--minutes" => o.minutes = number()?.into(),
            "--row" => o.row = number()?,
            "--only" => o.only = Some(value),
            "--group" => o.group = Some(value),
            "--write" => o.write = Some(value),
            _ => return Err(format!("Unknown option {arg}")),
        }
    }
    Ok(o)
}

pub fn main() -> ExitCode {
    match options().and_then(|o| run(&o)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Line {
    forms: u64,
    cases: u64,
    faults: u64,
    mismatches: u64,
}

/// Runs a fuzzer in rounds of a second or so, with a seed each.
fn fuzz_rounds(o: &Options, fuzzer: Fuzzer) -> Result<u64, String> {
    let end = Instant::now() + Duration::from_secs(o.minutes * 60);
    let (mut seed, mut done) = (o.plan.seed, 0u64);
    while Instant::now() < end {
        let (count, found) = match fuzzer {
            Fuzzer::Blocks => (fuzz::blocks(seed, 1000)?, Vec::new()),
            Fuzzer::Decoder => fuzz::decoder(seed, 1_000_000, 20),
        };
        if !found.is_empty() {
            return Err(found.join("\n"));
        }
        done += u64::from(count);
        seed += 1;
    }
    let what = match fuzzer {
        Fuzzer::Blocks => "programs ran twice",
        Fuzzer::Decoder => "instructions decoded twice",
    };
    println!("{} minutes, seeds {} to {}: {done} {what}, no difference", o.minutes, o.plan.seed, seed - 1);
    Ok(0)
}

fn run(o: &Options) -> Result<u64, String> {
    if let Some(fuzzer) = o.fuzz {
        return fuzz_rounds(o, fuzzer);
    }
    let mut bench = Bench::new().map_err(|e| format!("This host cannot run the cases: {e}"))?;
    println!("compared with {}", native::name());
    let mut lines: BTreeMap<(&str, String), Line> = BTreeMap::new();
    let mut groups: BTreeMap<&str, Line> = BTreeMap::new();
    let forms = generate::forms();
    for form in &forms {
        if o.only.as_ref().is_some_and(|n| *n != form.name)
            || o.group.as_ref().is_some_and(|g| g != form.group)
        {
            continue;
        }
        let row = forms.iter().filter(|f| (f.group, &f.name) == (form.group, &form.name)).count() as u32;
        let cases = o.plan.cases.max(o.row.div_ceil(row));
        let tally = bench.form(form, Plan { cases, ..o.plan });
        for s in &tally.shown {
            println!("{s}");
        }
        for line in
            [lines.entry((form.group, form.name.clone())).or_default(), groups.entry(form.group).or_default()]
        {
            line.forms += 1;
            line.cases += tally.cases;
            line.faults += tally.faults;
            line.mismatches += tally.mismatches;
        }
    }
    let mut table =
        String::from("| group | forms | cases | of them faults | mismatches |\n|---|---|---|---|---|\n");
    for (group, l) in &groups {
        let _ = writeln!(table, "| {group} | {} | {} | {} | {} |", l.forms, l.cases, l.faults, l.mismatches);
    }
    println!("{table}");
    for ((group, name), l) in lines.iter().filter(|(_, l)| l.mismatches != 0) {
        println!("{group} {name}: {} of {} cases differ", l.mismatches, l.cases);
    }
    if let Some(path) = &o.write {
        let _ = writeln!(
            table,
            "\n| instruction | forms | cases | of them faults | mismatches |\n|---|---|---|---|---|"
        );
        for ((group, name), l) in &lines {
            let _ = writeln!(
                table,
                "| {group}: {name} | {} | {} | {} | {} |",
                l.forms, l.cases, l.faults, l.mismatches
            );
        }
        write_table(path, &table).map_err(|e| format!("{path}: {e}"))?;
    }
    Ok(groups.values().map(|l| l.mismatches).sum())
}

/// Replaces what stands between the marks in a document, or writes a file of its own.
fn write_table(path: &str, table: &str) -> std::io::Result<()> {
    const MARKS: [&str; 2] = ["<!-- table -->\n", "<!-- /table -->"];
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let new = match (old.split_once(MARKS[0]), old.split_once(MARKS[1])) {
        (Some((before, _)), Some((_, after))) => [before, MARKS[0], table, MARKS[1], after].concat(),
        _ => table.to_string(),
    };
    std::fs::write(path, new)
}
