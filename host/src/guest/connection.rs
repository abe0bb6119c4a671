//! Connections that the guest makes for the host.

use std::io::{self, Read, Write};

use guest86::call::{self, Accepted};

use super::session::Channel;
use super::{Guest, GuestError};

/// A TCP connection of the guest's: to a server ([`Guest::dial`]), or from a client ([`Listener::accept`]). Dropping it
/// ends it.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
}

impl Connection {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Says to the other end that no more will be written; what that says can still be read.
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

/// A port of the guest's at which its programs call the host ([`Guest::listen`]). Dropping it closes the port.
#[derive(Debug)]
pub struct Listener {
    guest: Guest,
    channel: Channel,
    address: String,
}

impl Listener {
    pub(super) fn new(guest: &Guest, channel: Channel, address: String) -> Self {
        Self { guest: guest.clone(), channel, address }
    }

    /// Where it listens, with the port that was free if any was asked for.
    pub fn local_address(&self) -> &str {
        &self.address
    }

    /// Waits for a connection; gives the address of its other end, too.
    pub fn accept(&mut self) -> Result<(Connection, String), GuestError> {
        let Accepted { number, peer } = self.channel.value(None)?;
        let channel = self.guest.stream(call::ACCEPT, &number)?;
        Ok((Connection::new(channel), peer))
    }
}
