//! The log, for those who look for defects: off unless `ENV86_LOG` says which part is to speak and
//! how much, as in `ENV86_LOG=debug` or `ENV86_LOG=pit=trace,9p=debug`.

use std::env;
use std::io;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log on stderr, if it is wanted.
pub fn start() {
    let Ok(wanted) = env::var("ENV86_LOG") else { return };
    match wanted.parse::<Targets>() {
        Ok(targets) => {
            let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
            tracing_subscriber::registry().with(layer).with(targets).init();
        }
        Err(error) => {
            eprintln!("env86: ENV86_LOG={wanted} is not understood ({error}); write PART=LEVEL,...")
        }
    }
}
