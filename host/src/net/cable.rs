//! Cables: what carries Ethernet frames between a card and a network.
//!
//! A frame is a whole Ethernet frame without its check sequence, and its checksums are right. Where
//! both ends say so it may be longer than the medium's 1514 bytes: a TCP segment of up to 64 KiB
//! that the receiver, or the card, is to take as the many that it stands for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// An Ethernet frame.
pub type Frame = Vec<u8>;

/// Frames that a cable holds in each direction.
const QUEUE: usize = 256;
/// Frames that a disturbed cable holds back in each direction.
const HELD_BACK: usize = 1024;

/// One end of a cable. Frames go in at one end and come out at the other in their order; a cable
/// that is full takes no more until the other end has taken some.
#[derive(Debug)]
pub struct Port {
    /// Takes frames.
    pub sender: Sender<Frame>,
    /// Gives frames; none ever again when the other end is gone.
    pub receiver: Receiver<Frame>,
}

/// A cable, by its two ends.
pub fn cable() -> (Port, Port) {
    let (to_right, from_left) = mpsc::channel(QUEUE);
    let (to_left, from_right) = mpsc::channel(QUEUE);
    (Port { sender: to_right, receiver: from_right }, Port { sender: to_left, receiver: from_left })
}

/// The magic number of a pcap file whose times are in microseconds.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
/// The longest frame that a pcap file takes: 256 KiB.
const PCAP_SNAPLEN: u32 = 1 << 18;
/// pcap's number of Ethernet.
const LINKTYPE_ETHERNET: u32 = 1;

/// A recorder of frames in the format of libpcap.
#[derive(Debug)]
pub struct Pcap<W> {
    file: W,
}

impl<W: Write> Pcap<W> {
    /// Begins a recording.
    pub fn new(mut file: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(PCAP_MAGIC.to_le_bytes());
        header.extend([2, 0, 4, 0]); // Version 2.4.
        header.extend([0; 8]); // Times are UTC, of no stated accuracy.
        header.extend(PCAP_SNAPLEN.to_le_bytes());
        header.extend(LINKTYPE_ETHERNET.to_le_bytes());
        file.write_all(&header)?;
        Ok(Self { file })
    }

    /// Records a frame that passed at a time.
    pub fn record(&mut self, at: SystemTime, frame: &[u8]) -> io::Result<()> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = Vec::with_capacity(16 + frame.len());
        record.extend((since.as_secs() as u32).to_le_bytes());
        record.extend(since.subsec_micros().to_le_bytes());
        record.extend((frame.len() as u32).to_le_bytes());
        record.extend((frame.len() as u32).to_le_bytes());
        record.extend(frame);
        self.file.write_all(&record)?;
        self.file.flush()
    }
}

/// Puts a recorder into a cable, before the given end. A recording that cannot be written ends; the
/// cable goes on. Each direction goes on without the other, so that a side that takes no frames can
/// still be heard.
pub fn record<W: Write + Send + 'static>(port: Port, pcap: Pcap<W>) -> Port {
    let (near, far) = cable();
    let pcap = Arc::new(Mutex::new(Some(pcap)));
    tokio::spawn(record_one_way(port.receiver, far.sender, pcap.clone()));
    tokio::spawn(record_one_way(far.receiver, port.sender, pcap));
    near
}

async fn record_one_way<W: Write>(
    mut from: Receiver<Frame>,
    to: Sender<Frame>,
    pcap: Arc<Mutex<Option<Pcap<W>>>>,
) {
    while let Some(frame) = from.recv().await {
        {
            let mut pcap = pcap.lock().unwrap_or_else(PoisonError::into_inner);
            let written = pcap.as_mut().map(|pcap| pcap.record(SystemTime::now(), &frame));
            if let Some(Err(error)) = written {
                warn!(target: "net", %error, "The recording of frames ends");
                *pcap = None;
            }
        }
        if to.send(frame).await.is_err() {
            return;
        }
    }
}

/// What a bad cable does to frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of a thousand frames so many are lost.
    pub lost: u32,
    /// Of a thousand frames so many are overtaken by those that come within [`Self::late_by`].
    pub late: u32,
    /// How much longer a late frame takes.
    pub late_by: Duration,
    /// How long every frame takes.
    pub delay: Duration,
    /// Where the random numbers start: the same seed loses the same frames.
    pub seed: u64,
}

/// Puts a fault into a cable, before the given end.
pub fn disturb(port: Port, faults: Faults) -> Port {
    let (near, far) = cable();
    tokio::spawn(disturb_one_way(port.receiver, far.sender, faults));
    let other = Faults { seed: faults.seed ^ 0x5555_5555_5555_5555, ..faults };
    tokio::spawn(disturb_one_way(far.receiver, port.sender, other));
    near
}

async fn disturb_one_way(mut from: Receiver<Frame>, to: Sender<Frame>, faults: Faults) {
    let mut random = Random(faults.seed | 1);
    let mut held: BinaryHeap<Reverse<(Instant, u64, Frame)>> = BinaryHeap::new();
    let mut count = 0;
    loop {
        let due = held.peek().map(|Reverse((due, ..))| *due);
        let mut timer = std::pin::pin!(sleep_until(due.unwrap_or_else(Instant::now)));
        let full = held.len() >= HELD_BACK;
        let event = poll_fn(|cx| {
            if due.is_some() && timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if full { Poll::Pending } else { from.poll_recv(cx).map(Some) }
        })
        .await;
        match event {
            None => {
                let Some(Reverse((.., frame))) = held.pop() else { continue };
                if to.send(frame).await.is_err() {
                    return;
                }
            }
            Some(None) => return,
            Some(Some(_)) if random.below(1000) < faults.lost => {}
            Some(Some(frame)) => {
                let late = random.below(1000) < faults.late;
                let delay = faults.delay + if late { faults.late_by } else { Duration::ZERO };
                count += 1;
                if delay.is_zero() && held.is_empty() {
                    if to.send(frame).await.is_err() {
                        return;
                    }
                } else {
                    held.push(Reverse((Instant::now() + delay, count, frame)));
                }
            }
        }
    }
}

/// Marsaglia's xorshift, for faults that can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_pcap_file() {
        let mut pcap = Pcap::new(Vec::new()).unwrap();
        pcap.record(UNIX_EPOCH + Duration::from_micros(3_000_002), b"frame").unwrap();
        let bytes = pcap.file;
        assert_eq!(bytes[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(bytes[16..24], [0, 0, 4, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[24..40], [3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(&bytes[40..], b"frame");
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_cable_keeps_order_and_waits_when_full() {
        runtime().block_on(async {
            let (left, mut right) = cable();
            for n in 0..QUEUE {
                left.sender.try_send(vec![n as u8]).unwrap();
            }
            left.sender.try_send(vec![0]).unwrap_err();
            for n in 0..QUEUE {
                assert_eq!(right.receiver.recv().await, Some(vec![n as u8]));
            }
            drop(left);
            assert_eq!(right.receiver.recv().await, None);
        });
    }

    #[test]
    fn a_bad_cable_loses_and_reorders_the_same_frames_again() {
        let pass = |seed| {
            runtime().block_on(async {
                let (left, right) = cable();
                let late_by = Duration::from_millis(1);
                let mut right =
                    disturb(right, Faults { lost: 100, late: 200, late_by, seed, ..Faults::default() });
                let sender = left.sender;
                let feeder = tokio::spawn(async move {
                    for n in 0..200u8 {
                        sender.send(vec![n]).await.unwrap();
                    }
                    // The frames that are late come before the end of the cable.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                });
                let mut seen = Vec::new();
                while let Some(frame) = right.receiver.recv().await {
                    seen.push(frame[0]);
                }
                feeder.await.unwrap();
                seen
            })
        };
        let (mut first, mut again) = (pass(7), pass(7));
        assert!(!first.is_sorted(), "some came late");
        first.sort_unstable();
        again.sort_unstable();
        assert_eq!(first, again);
        assert!((150..200).contains(&first.len()), "{}", first.len());
    }
}
