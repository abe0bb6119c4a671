//! The text of the host's clipboard, typed on the guest's keyboard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arboard::Clipboard;
use env86_core::keys::Layout;
use tracing::{debug, warn};

use crate::machine::Controls;

/// A text that is being typed, by a thread of its own: the window waits neither for the program that has the text
/// nor for the guest that reads it.
pub(super) struct Paste {
    wanted: Arc<AtomicBool>,
    /// Until the thread ends.
    thread: thread::JoinHandle<()>,
}

impl Paste {
    /// Starts typing; `None` if the host has no thread for it.
    pub fn start(controls: Controls, layout: Layout) -> Option<Self> {
        let wanted = Arc::new(AtomicBool::new(true));
        let still = wanted.clone();
        let paste = move || match Clipboard::new().and_then(|mut clipboard| clipboard.get_text()) {
            Ok(text) => {
                let typed = controls.paste(&text, layout, || still.load(Ordering::Relaxed));
                if let Err(error) = typed {
                    debug!(target: "window", %error, "The clipboard's text was not typed to its end");
                }
            }
            Err(error) => warn!(target: "window", %error, "There is no text to be had from the clipboard"),
        };
        let thread = thread::Builder::new().name("paste".into()).spawn(paste);
        thread
            .inspect_err(|error| warn!(target: "window", %error, "Cannot paste"))
            .ok()
            .map(|thread| Self { wanted, thread })
    }

    /// Types no more; says whether there was anything left to do.
    pub fn stop(self) -> bool {
        self.wanted.store(false, Ordering::Relaxed);
        !self.thread.is_finished()
    }
}
