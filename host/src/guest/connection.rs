//! Connections that the guest makes for the host.

use std::io::{self, Read, Write};

use super::session::Channel;

/// A TCP connection between the guest and a server that it reaches ([`super::Guest::dial`]). Dropping it ends it.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Says to the server that no more will be written; what it says can still be read.
    pub fn shutdown_write(&self) {
        self.channel.send_eof();
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.channel.read(buf, None)?)
    }
}

impl Write for Connection {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.channel.send(buf, None)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
