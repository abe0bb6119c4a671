//! Flags as the Go program spells them.
//!
//! There `-name` and `--name` are one, and a boolean flag may be given as `-flag=false`. Here
//! words are brought to the one form that the parser knows, before it sees them.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::Command;

/// Spells the flags among the arguments (without the program's name) in the usual way.
///
/// One-letter flags, the values of flags and everything after `--` stay as they are.
pub fn normalise(args: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let mut args = args.into_iter().peekable();
    // A letter may be another flag in another command.
    let named = args.peek().and_then(|word| command.find_subcommand(word));
    let commands: Vec<&Command> = match named {
        Some(named) => vec![command, named],
        None => std::iter::once(command).chain(command.get_subcommands()).collect(),
    };
    let (flags, letters) = (flags(&commands), letters_with_values(&commands));
    let mut words = Vec::new();
    // Of `run` and `exec`, the first word that is no flag is the image or machine; what follows is the guest's.
    let mut runs = false;
    while let Some(arg) = args.next() {
        if runs && arg.to_str().is_none_or(|arg| !arg.starts_with('-') || arg == "-") {
            words.extend([arg, "--".into()]);
            // Those who write it themselves mean the same.
            words.extend(args.enumerate().filter(|(n, arg)| *n > 0 || arg != "--").map(|(_, arg)| arg));
            break;
        }
        runs |= words.is_empty() && (arg == "run" || arg == "exec");
        if arg == "--" {
            words.push(arg);
            words.extend(args);
            break;
        }
        match arg.to_str().and_then(long_flag) {
            Some((name, value)) => match (flags.get(name), value) {
                (Some(Kind::Switch), Some(value)) if is_true(value) == Some(false) => {}
                (Some(Kind::Switch), Some(value)) if is_true(value) == Some(true) => {
                    words.push(format!("--{name}").into());
                }
                (Some(Kind::Value), None) => {
                    words.push(format!("--{name}").into());
                    words.extend(args.next());
                }
                (_, Some(value)) => words.push(format!("--{name}={value}").into()),
                (_, None) => words.push(format!("--{name}").into()),
            },
            None => {
                let takes_next =
                    runs && arg.to_str().and_then(letter).is_some_and(|letter| letters.contains(&letter));
                words.push(arg);
                if takes_next {
                    words.extend(args.next());
                }
            }
        }
    }
    words
}

/// The letter of a word that is a flag of one letter, without a value.
fn letter(word: &str) -> Option<char> {
    let mut letters = word.strip_prefix('-')?.chars();
    letters.next().filter(|_| letters.next().is_none())
}

/// The flags of one letter whose value is the next word.
fn letters_with_values(commands: &[&Command]) -> Vec<char> {
    let args = commands.iter().flat_map(|command| command.get_arguments());
    let with_value = args.filter(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set());
    with_value.filter_map(clap::Arg::get_short).collect()
}

/// The name and the attached value of a word that is a flag of more than one letter.
fn long_flag(word: &str) -> Option<(&str, Option<&str>)> {
    let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    (name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic())).then_some((name, value))
}

/// A boolean as Go's flags take it.
fn is_true(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What follows a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Switch,
    /// A value after `=`, or nothing.
    Optional,
    /// A value.
    Value,
}

/// The long flags of commands.
fn flags(commands: &[&Command]) -> HashMap<String, Kind> {
    let mut flags = HashMap::new();
    for arg in commands.iter().flat_map(|command| command.get_arguments()) {
        let kind = match arg.is_require_equals_set() {
            _ if !arg.get_action().takes_values() => Kind::Switch,
            true => Kind::Optional,
            false => Kind::Value,
        };
        flags.extend(arg.get_long().map(|name| (name.to_owned(), kind)));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn check(given: &str, expected: &str) {
        let got = normalise(given.split(' ').map(OsString::from), &Cli::command());
        let expected: Vec<_> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn long_flags_get_a_second_dash() {
        check("boot -ttyS0 -exit-on ok ./img", "boot --ttyS0 --exit-on ok ./img");
        check("boot ./img -no-console -memory=1G", "boot ./img --no-console --memory=1G");
        check("boot --cold img", "boot --cold img");
    }

    #[test]
    fn switches_take_a_boolean() {
        check("boot -cold=false -ttyS0=true img", "boot --ttyS0 img");
        check("boot -acpi img -acpi=false", "boot --acpi img --acpi=false");
    }

    #[test]
    fn values_stay() {
        check("boot -exit-on -login img", "boot --exit-on -login img");
        check("boot -append -x=y img", "boot --append -x=y img");
    }

    #[test]
    fn short_flags_and_other_words_stay() {
        check("-v -h - -1 -n -p=1:2", "-v -h - -1 -n -p=1:2");
    }

    #[test]
    fn what_follows_an_image_that_is_run_is_the_guest_s() {
        check("run -cold -e A=1 -i=false img ls -l -all", "run --cold -e A=1 -i=false img -- ls -l -all");
        check("run -w /tmp -memory 1G img -cold", "run -w /tmp --memory 1G img -- -cold");
        check("run img -- ls --", "run img -- ls --");
        // A flag of `build` with a value.
        check("run -t img sh -c ls", "run -t img -- sh -c ls");
        check("exec -tty=false -u me name ls -all", "exec --tty=false -u me name -- ls -all");
    }

    #[test]
    fn nothing_after_a_double_dash_is_touched() {
        check("boot -- -weird", "boot -- -weird");
    }
}
