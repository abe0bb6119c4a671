//! `boot --console-url`: the running machine in pages of browsers.

use std::net::SocketAddr;

use env86::console::pages::{Options, Pages};
use env86::image::Image;
use serde_json::{Value, json};

use super::{CliError, page};

/// Where pages show the machine, if they are to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub Option<SocketAddr>);

/// Reads the flag's value: an address and a port, or a boolean as the Go program has it.
pub fn parse_place(text: &str) -> Result<Place, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Place(Some(([127, 0, 0, 1], 0).into()))),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Place(None)),
        text => match text.parse() {
            Ok(listen) => Ok(Place(Some(listen))),
            Err(_) => {
                Err("give an address and a port, such as 127.0.0.1:8086; without them it is a free port"
                    .into())
            }
        },
    }
}

/// Takes the port.
pub fn open(
    listen: SocketAddr,
    name: String,
    config: Value,
    keyboard: bool,
    mouse: bool,
) -> Result<Pages, CliError> {
    let files = page::files()?.into_iter().collect();
    let name = if name.is_empty() { "env86".into() } else { name };
    Ok(Pages::open(Options { listen, name, files, config, keyboard, mouse })?)
}

/// Says where pages find the machine: to the person, and into no log.
pub fn say_addresses(pages: &Pages) {
    eprintln!("Console URL: {}", pages.url());
    eprintln!("Console URL, only to look: {}", pages.view_url());
}

/// How the machine is run, as the Go program says it besides.
pub struct Run<'a> {
    pub no_console: bool,
    pub tty: bool,
    pub cold: bool,
    pub save: bool,
    pub exit_on: Option<&'a str>,
    pub network: bool,
}

/// What `config` gives: what `image.json` says, and how the machine is run. What is not set is left out, as there.
pub fn config(image: Option<&Image>, memory: Option<u64>, run: &Run) -> Result<Value, CliError> {
    let mut config = match image {
        Some(image) => serde_json::to_value(&image.config)?,
        None => json!({}),
    };
    let more = json!({
        "memory_size": memory,
        "NoConsole": run.no_console.then_some(true),
        "EnableTTY": run.tty.then_some(true),
        "ColdBoot": run.cold.then_some(true),
        "SaveOnExit": run.save.then_some(true),
        "ExitPattern": run.exit_on,
        "EnableNetwork": run.network.then_some(true),
    });
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_addresses_or_booleans() {
        assert_eq!(parse_place("true"), parse_place("127.0.0.1:0"));
        assert_eq!(parse_place("false"), Ok(Place(None)));
        assert_eq!(parse_place("[::]:80"), Ok(Place(Some("[::]:80".parse().unwrap()))));
        for wrong in ["", "80", "localhost", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let run =
            Run { no_console: true, tty: false, cold: false, save: false, exit_on: None, network: false };
        assert_eq!(config(None, Some(5), &run).unwrap(), json!({"memory_size": 5, "NoConsole": true}));
    }
}
