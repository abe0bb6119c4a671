//! virtio-console (virtio 1.1, 5.3): four ports, each a byte stream in both directions, and a pair
//! of queues to control them. The last port is that of the service in the guest ([`SERVICE_PORT`]), the
//! others are consoles.

use super::{Action, BAR_DEVICE, F_VERSION_1, Transport};
use crate::pci::{ConfigSpace, Function, devfn};
use env86_emu::{Memory, Width};
use std::collections::VecDeque;
use tracing::{debug, trace};

/// Where the device sits.
pub const DEVFN: u8 = devfn(12, 0);
/// The ports that a guest sees.
pub const PORTS: usize = 4;
/// The port of the service in the guest: no console, but bytes that pass unchanged and in large pieces.
/// Guests find it by its name.
pub const SERVICE_PORT: usize = PORTS - 1;
/// What [`SERVICE_PORT`] is called, in Linux `/sys/class/virtio-ports/*/name`.
pub const SERVICE_NAME: &str = "org.env86.guest";
/// Bytes that wait in a port for the guest, and for the host, before the other side has to wait.
pub const CAPACITY: usize = 64 << 10;

/// While so many bytes wait for the guest, a buffer of the driver's is not filled as soon as there is one, but with
/// [`AT_ONCE`] others or at the next [`VirtioConsole::poll`]: each filling is an interrupt.
const MANY: usize = 32 << 10;
/// Half of the buffers of a port.
const AT_ONCE: u16 = 8;

/// Feature bit 0: the configuration has the size of the screen.
const F_SIZE: u32 = 1 << 0;
/// Feature bit 1: more than one port.
const F_MULTIPORT: u32 = 1 << 1;
const DEVICE_TYPE: u16 = 3;
/// I/O ports at power-up, by base address.
const IO_PORTS: [u16; 4] = [0xb800, 0xb900, 0xb700, 0xb600];
/// Bytes of the configuration: columns 2, rows 2, ports 4, emergency write 4.
const CONFIG_LENGTH: u16 = 12;

/// Sizes and notify offsets: port 0 in and out, control in and out, ports 1 to 3 in and out.
const QUEUES: [(u16, u16); 2 + 2 * PORTS] =
    [(16, 0), (16, 1), (16, 2), (16, 3), (16, 0), (8, 1), (16, 0), (8, 1), (16, 0), (8, 1)];
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
/// Bytes of a control message: port 4, event 2, value 2.
const CONTROL_SIZE: usize = 8;
/// Control messages that wait for the guest to offer buffers; further ones are lost.
const MAX_CONTROL: usize = 64;

/// Control events (5.3.6.2).
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const DEVICE_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const RESIZE: u16 = 5;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// The bytes that wait in a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// For the guest.
    pub input: VecDeque<u8>,
    /// For the host.
    pub output: VecDeque<u8>,
    /// A program of the guest's has the port open.
    pub open: bool,
}

/// The device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioConsole {
    /// The registers and the queues.
    pub transport: Transport,
    /// Rows of the screen.
    pub rows: u16,
    /// Columns of the screen.
    pub cols: u16,
    /// The ports.
    pub ports: [Port; PORTS],
    /// Control messages for the guest.
    pub control: VecDeque<Vec<u8>>,
}

impl Default for VirtioConsole {
    fn default() -> Self {
        Self {
            transport: Transport::new([F_SIZE | F_MULTIPORT, F_VERSION_1, 0, 0], &QUEUES),
            rows: 25,
            cols: 80,
            ports: Default::default(),
            control: VecDeque::new(),
        }
    }
}

/// The queue from the host to a port.
fn input_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 + 2 * port }
}

/// The port whose output comes in a queue.
fn port_of_output(queue: usize) -> Option<usize> {
    (0..PORTS).find(|port| input_queue(*port) + 1 == queue)
}

/// The bytes that have waited the longest, `most` of them. (Collecting what a queue drains goes byte by byte.)
fn take(waiting: &mut VecDeque<u8>, most: usize) -> Vec<u8> {
    let len = waiting.len().min(most);
    let (front, back) = waiting.as_slices();
    let (front, back) = (&front[..len.min(front.len())], &back[..len.saturating_sub(front.len())]);
    let taken = [front, back].concat();
    waiting.drain(..len);
    taken
}

impl VirtioConsole {
    /// The level of the interrupt pin.
    pub fn irq(&self) -> bool {
        self.transport.irq()
    }

    /// The machine's reset: what waits for the guest is lost, what it wrote is not.
    pub fn reset(&mut self) {
        self.transport.reset();
        self.control.clear();
        for port in &mut self.ports {
            port.input.clear();
            port.open = false;
        }
    }

    /// Reads a port of a base address.
    pub fn port_read(&mut self, bar: usize, offset: u16, width: Width) -> u32 {
        let mut config = [0; CONFIG_LENGTH as usize];
        config[..2].copy_from_slice(&self.cols.to_le_bytes());
        config[2..4].copy_from_slice(&self.rows.to_le_bytes());
        config[4..8].copy_from_slice(&(PORTS as u32).to_le_bytes());
        let config = if bar == BAR_DEVICE { &config[..] } else { &[] };
        self.transport.port_read(config, bar, offset, width)
    }

    /// Writes a port of a base address.
    pub fn port_write(&mut self, mem: &mut Memory, bar: usize, offset: u16, width: Width, value: u32) {
        match self.transport.port_write(bar, offset, width, value) {
            Action::None => {}
            Action::Reset => self.reset(),
            Action::DriverOk => self.poll(mem),
            Action::Notify(CONTROL_IN) => self.send_control(mem),
            Action::Notify(CONTROL_OUT) => self.receive_control(mem),
            Action::Notify(queue) => match port_of_output(queue) {
                Some(port) => self.take_output(mem, port),
                None => match (0..PORTS).find(|port| input_queue(*port) == queue) {
                    Some(port) if self.waits_for_more(mem, port) => {}
                    _ => self.send_input(mem),
                },
            },
        }
    }

    /// Moves what can be moved between the ports and the guest. The host calls it after it has
    /// added input or taken output.
    pub fn poll(&mut self, mem: &mut Memory) {
        self.receive_control(mem);
        self.send_input(mem);
        (0..PORTS).for_each(|port| self.take_output(mem, port));
    }

    /// Adds bytes for the guest to a port; returns how many it had room for.
    pub fn push_input(&mut self, port: usize, bytes: &[u8]) -> usize {
        let Some(port) = self.ports.get_mut(port) else { return 0 };
        let n = bytes.len().min(CAPACITY.saturating_sub(port.input.len()));
        port.input.extend(&bytes[..n]);
        n
    }

    /// Bytes that wait for the guest.
    pub fn input_waiting(&self) -> usize {
        self.ports.iter().map(|port| port.input.len()).sum()
    }

    /// Takes all that the guest has written to a port.
    pub fn drain_output(&mut self, port: usize) -> Vec<u8> {
        let Some(port) = self.ports.get_mut(port) else { return Vec::new() };
        take(&mut port.output, usize::MAX)
    }

    /// Tells the guest the size of the screen.
    pub fn set_size(&mut self, mem: &mut Memory, cols: u16, rows: u16) {
        if (self.cols, self.rows) == (cols, rows) {
            return;
        }
        (self.cols, self.rows) = (cols, rows);
        self.transport.config_changed();
        if self.transport.is_running() {
            self.queue_size(0);
            self.send_control(mem);
        }
    }

    fn queue_control(&mut self, port: usize, event: u16, value: u16, extra: &[u8]) {
        if self.control.len() == MAX_CONTROL {
            debug!(target: "virtio.console", port, event, "Control message lost");
            return;
        }
        let mut message = Vec::with_capacity(CONTROL_SIZE + extra.len());
        message.extend((port as u32).to_le_bytes());
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(extra);
        self.control.push_back(message);
    }

    /// Columns come first (5.3.6.2), as the stable kernels of Linux have read it since 2025. Older
    /// drivers, and v86, have them the other way round.
    fn queue_size(&mut self, port: usize) {
        let [a, b] = self.cols.to_le_bytes();
        let [c, d] = self.rows.to_le_bytes();
        self.queue_control(port, event::RESIZE, 0, &[a, b, c, d]);
    }

    fn send_control(&mut self, mem: &mut Memory) {
        while !self.control.is_empty() {
            let Some(chain) = self.transport.pop(mem, CONTROL_IN) else { break };
            let message = self.control.pop_front().unwrap_or_default();
            let written = chain.write(mem, &message);
            self.transport.complete(mem, CONTROL_IN, chain.head, written);
        }
    }

    fn receive_control(&mut self, mem: &mut Memory) {
        let mut message = Vec::new();
        for _ in 0..QUEUES[CONTROL_OUT].0 {
            let Some(chain) = self.transport.pop(mem, CONTROL_OUT) else { break };
            chain.read(mem, &mut message, CONTROL_SIZE);
            self.transport.complete(mem, CONTROL_OUT, chain.head, 0);
            if let &[a, b, c, d, e, f, g, h] = message.as_slice() {
                let event = u16::from_le_bytes([e, f]);
                self.control_event(u32::from_le_bytes([a, b, c, d]), event, u16::from_le_bytes([g, h]));
            }
        }
        self.send_control(mem);
    }

    fn control_event(&mut self, port: u32, event: u16, value: u16) {
        trace!(target: "virtio.console", port, event, value, "control");
        let port = usize::try_from(port).ok().filter(|port| *port < PORTS);
        match (event, port) {
            (event::DEVICE_READY, _) => {
                (0..PORTS).for_each(|port| self.queue_control(port, event::DEVICE_ADD, 0, &[]));
            }
            (event::PORT_READY, Some(SERVICE_PORT)) => {
                self.queue_control(SERVICE_PORT, event::PORT_NAME, 0, SERVICE_NAME.as_bytes());
                self.queue_control(SERVICE_PORT, event::PORT_OPEN, 1, &[]);
            }
            (event::PORT_READY, Some(port)) => {
                self.queue_control(port, event::CONSOLE_PORT, 1, &[]);
                self.queue_control(port, event::PORT_NAME, 0, format!("virtio-{port}").as_bytes());
                self.queue_control(port, event::PORT_OPEN, 1, &[]);
            }
            (event::PORT_OPEN, Some(port)) => {
                self.ports[port].open = value != 0;
                match (port, value) {
                    // What was for a program that has gone is not the next one's.
                    (_, 0) => self.ports[port].input.clear(),
                    (SERVICE_PORT, _) => {}
                    _ => self.queue_size(port),
                }
            }
            _ => {}
        }
    }

    fn send_input(&mut self, mem: &mut Memory) {
        for number in 0..PORTS {
            let queue = input_queue(number);
            while !self.ports[number].input.is_empty() {
                let Some(chain) = self.transport.pop(mem, queue) else { break };
                let input = &mut self.ports[number].input;
                let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
                let bytes = take(input, room);
                let written = chain.write(mem, &bytes);
                self.transport.complete(mem, queue, chain.head, written);
                if written == 0 {
                    break;
                }
            }
        }
    }

    /// The driver is about to offer more buffers of a port that much waits for.
    fn waits_for_more(&self, mem: &Memory, port: usize) -> bool {
        self.ports[port].input.len() >= MANY && self.transport.waiting(mem, input_queue(port)) < AT_ONCE
    }

    /// Takes what the guest has written to a port, while there is room. Of a single request that is
    /// larger than all the room there can be, the end is lost.
    fn take_output(&mut self, mem: &mut Memory, port: usize) {
        let queue = input_queue(port) + 1;
        let mut bytes = Vec::new();
        for _ in 0..QUEUES[queue].0 {
            if self.ports[port].output.len() >= CAPACITY {
                break;
            }
            let Some(chain) = self.transport.pop(mem, queue) else { break };
            chain.read(mem, &mut bytes, CAPACITY);
            self.ports[port].output.extend(&bytes);
            self.transport.complete(mem, queue, chain.head, 0);
        }
    }
}

impl Function for VirtioConsole {
    fn devfn(&self) -> u8 {
        DEVFN
    }

    fn config_space(&self) -> ConfigSpace {
        self.transport.config_space(DEVICE_TYPE, IO_PORTS, CONFIG_LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Driver;
    use super::super::{BAR_COMMON, BAR_NOTIFY, STATUS_DRIVER_OK};
    use super::*;

    const WRITE: u16 = 2;

    struct Guest {
        mem: Box<Memory>,
        console: VirtioConsole,
        queues: Vec<Driver>,
    }

    impl Guest {
        fn new() -> Self {
            let mut console = VirtioConsole::default();
            let queues: Vec<_> =
                (0..10).map(|i| Driver::new(0x1000 * (i + 1), QUEUES[i as usize].0)).collect();
            for (queue, driver) in console.transport.queues.iter_mut().zip(&queues) {
                driver.place(queue);
            }
            console.transport.device_status = STATUS_DRIVER_OK;
            Self { mem: Memory::new(1 << 20).unwrap(), console, queues }
        }

        /// Each queue has a page of its own, each descriptor 256 bytes of it.
        fn buffer(queue: usize, index: u16) -> u32 {
            0x2_0000 + 0x1000 * queue as u32 + 0x100 * u32::from(index)
        }

        fn offer(&mut self, queue: usize, index: u16) {
            let addr = Self::buffer(queue, index).into();
            self.queues[queue].descriptor(&mut self.mem, index, addr, 256, WRITE, 0);
            self.queues[queue].offer(&mut self.mem, index);
            self.notify(queue);
        }

        fn send(&mut self, queue: usize, bytes: &[u8]) {
            let addr = Self::buffer(queue, 0);
            self.mem.write(addr, bytes);
            self.queues[queue].descriptor(&mut self.mem, 0, addr.into(), bytes.len() as u32, 0, 0);
            self.queues[queue].offer(&mut self.mem, 0);
            self.notify(queue);
        }

        fn notify(&mut self, queue: usize) {
            self.console.port_write(&mut self.mem, BAR_NOTIFY, 0, Width::Word, queue as u32);
        }

        fn received(&mut self, queue: usize) -> Option<Vec<u8>> {
            let (index, len) = self.queues[queue].taken(&self.mem)?;
            let mut bytes = vec![0; len as usize];
            self.mem.read(Self::buffer(queue, index as u16), &mut bytes);
            Some(bytes)
        }
    }

    #[test]
    fn the_ports_introduce_themselves() {
        let mut guest = Guest::new();
        (0..8).for_each(|i| guest.offer(CONTROL_IN, i));
        guest.send(CONTROL_OUT, &[0, 0, 0, 0, 0, 0, 1, 0]);
        for port in 0..4 {
            assert_eq!(guest.received(CONTROL_IN), Some(vec![port, 0, 0, 0, 1, 0, 0, 0]));
        }
        guest.send(CONTROL_OUT, &[2, 0, 0, 0, 3, 0, 1, 0]);
        assert_eq!(guest.received(CONTROL_IN), Some(vec![2, 0, 0, 0, 4, 0, 1, 0]));
        assert_eq!(guest.received(CONTROL_IN).unwrap()[..], *b"\x02\0\0\0\x07\0\0\0virtio-2");
        assert_eq!(guest.received(CONTROL_IN), Some(vec![2, 0, 0, 0, 6, 0, 1, 0]));
        guest.send(CONTROL_OUT, &[0, 0, 0, 0, 6, 0, 1, 0]);
        assert_eq!(guest.received(CONTROL_IN), Some(vec![0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0]));
        guest.console.set_size(&mut guest.mem, 132, 50);
        assert_eq!(guest.received(CONTROL_IN), None, "no buffer yet");
        guest.offer(CONTROL_IN, 0);
        assert_eq!(guest.received(CONTROL_IN), Some(vec![0, 0, 0, 0, 5, 0, 0, 0, 132, 0, 50, 0]));
        assert_eq!(guest.console.port_read(BAR_DEVICE, 0, Width::Dword), 50 << 16 | 132);
        assert_eq!(guest.console.port_read(BAR_DEVICE, 4, Width::Dword), 4);
        guest.send(CONTROL_OUT, &[9, 0, 0, 0, 3, 0, 1, 0]);
        guest.send(CONTROL_OUT, &[9, 0, 0]);
        assert!(guest.console.control.is_empty());
    }

    #[test]
    fn the_services_port_is_no_console() {
        let mut guest = Guest::new();
        (0..4).for_each(|i| guest.offer(CONTROL_IN, i));
        guest.send(CONTROL_OUT, &[3, 0, 0, 0, 3, 0, 1, 0]);
        assert_eq!(guest.received(CONTROL_IN).unwrap()[..], *b"\x03\0\0\0\x07\0\0\0org.env86.guest");
        assert_eq!(guest.received(CONTROL_IN), Some(vec![3, 0, 0, 0, 6, 0, 1, 0]));
        assert!(!guest.console.ports[SERVICE_PORT].open);
        guest.send(CONTROL_OUT, &[3, 0, 0, 0, 6, 0, 1, 0]);
        assert!(guest.console.ports[SERVICE_PORT].open);
        assert_eq!(guest.console.push_input(SERVICE_PORT, b"for the program"), 15);
        guest.send(CONTROL_OUT, &[3, 0, 0, 0, 6, 0, 0, 0]);
        assert_eq!(guest.console.ports[SERVICE_PORT], Port::default());
        guest.send(CONTROL_OUT, &[3, 0, 0, 0, 6, 0, 1, 0]);
        guest.console.reset();
        assert!(!guest.console.ports[SERVICE_PORT].open);
        assert_eq!(guest.received(CONTROL_IN), None);
    }

    #[test]
    fn much_input_fills_buffers_by_the_half_of_a_queue() {
        let mut guest = Guest::new();
        let queue = input_queue(SERVICE_PORT);
        assert_eq!(guest.console.push_input(SERVICE_PORT, &[7; CAPACITY]), CAPACITY);
        for i in 0..AT_ONCE - 1 {
            guest.offer(queue, i);
            assert_eq!(guest.received(queue), None);
        }
        guest.offer(queue, AT_ONCE - 1);
        for _ in 0..AT_ONCE {
            assert_eq!(guest.received(queue), Some(vec![7; 256]));
        }
        // The host's next look, for a driver that offers no more.
        guest.offer(queue, AT_ONCE);
        assert_eq!(guest.received(queue), None);
        guest.console.poll(&mut guest.mem);
        assert_eq!(guest.received(queue), Some(vec![7; 256]));
    }

    #[test]
    fn bytes_go_both_ways_on_every_port() {
        let mut guest = Guest::new();
        for (port, (input, output)) in [(0, 1), (4, 5), (6, 7), (8, 9)].into_iter().enumerate() {
            guest.send(output, b"from the guest");
            assert_eq!(guest.console.drain_output(port), b"from the guest");
            assert_eq!(guest.console.push_input(port, &[b'x'; 300]), 300);
            guest.console.poll(&mut guest.mem);
            guest.offer(input, 0);
            guest.offer(input, 1);
            assert_eq!(guest.received(input), Some(vec![b'x'; 256]));
            assert_eq!(guest.received(input), Some(vec![b'x'; 44]));
            assert!(guest.console.irq());
        }
        assert_eq!(guest.console.push_input(4, b"x"), 0);
    }

    #[test]
    fn neither_side_can_fill_the_other() {
        let mut guest = Guest::new();
        assert_eq!(guest.console.push_input(0, &vec![0; CAPACITY + 1]), CAPACITY);
        for _ in 0..8 {
            let addr = Guest::buffer(5, 0).into();
            guest.queues[5].descriptor(&mut guest.mem, 0, addr, 0x1_0000, 0, 0);
            guest.queues[5].offer(&mut guest.mem, 0);
        }
        guest.notify(5);
        assert_eq!(guest.console.drain_output(1).len(), CAPACITY);
        guest.console.poll(&mut guest.mem);
        assert_eq!(guest.console.ports[1].output.len(), CAPACITY);
        for _ in 0..100 {
            guest.send(CONTROL_OUT, &[0; 8]);
        }
        assert_eq!(guest.console.control.len(), MAX_CONTROL);
        guest.console.port_write(&mut guest.mem, BAR_COMMON, 20, Width::Byte, 0);
        assert!(guest.console.control.is_empty());
        guest.notify(5);
        assert_eq!(guest.console.transport, VirtioConsole::default().transport);
    }
    #[test]
    fn hostile_rings() {
        let mut guest = Guest::new();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32 % below
        };
        for _ in 0..20_000 {
            if !guest.console.transport.is_running() {
                guest.console = Guest::new().console;
            }
            let queue = random(10) as usize;
            let message = [random(4) as u8, 0, 0, 0, random(8) as u8, 0, 1, 0];
            guest.send(queue, &message[..random(9) as usize]);
            for _ in 0..random(8) {
                guest.mem.write_u8(0x1000 + random(0xa000), random(256) as u8);
            }
            guest.console.push_input(random(4) as usize, &message);
            let (bar, offset) = (random(6) as usize, random(70) as u16);
            guest.console.port_read(bar, offset, Width::Dword);
            guest.console.port_write(&mut guest.mem, bar, offset, Width::Word, random(12));
            guest.console.poll(&mut guest.mem);
            if random(10) == 0 {
                guest.console.drain_output(queue % PORTS);
                guest.console.set_size(&mut guest.mem, message[0].into(), 25);
            }
        }
    }
}
