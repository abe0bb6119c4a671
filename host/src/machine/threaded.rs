//! A disk image that a thread of its own reads, because that takes long: the guest runs on meanwhile.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use env86_devices::ide::{DiskImage, DiskImageError};

/// Bytes from the beginning that are there from the start: a disk's geometry follows from them.
const FIRST: u64 = 512;

/// What takes long: it fills a buffer from a byte of the image on.
pub(super) type Reader = Box<dyn FnMut(u64, &mut [u8]) -> Result<(), DiskImageError> + Send>;

/// The image. It ends its thread when it is dropped.
pub(super) struct Threaded {
    size: u64,
    first: Vec<u8>,
    desk: Arc<Desk>,
}

/// What the image and its thread share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    /// The read that the drive waits for. It has only one at a time; one that it has given up is replaced.
    request: Option<Request>,
    waker: Option<Waker>,
    over: bool,
}

struct Request {
    offset: u64,
    len: usize,
    answer: Option<Result<Vec<u8>, DiskImageError>>,
}

impl Request {
    fn is(&self, offset: u64, len: usize) -> bool {
        (self.offset, self.len) == (offset, len)
    }
}

impl Threaded {
    /// An image of `size` bytes. Its beginning is read at once.
    pub fn new(size: u64, mut reader: Reader) -> io::Result<Self> {
        let mut first = vec![0; FIRST.min(size) as usize];
        reader(0, &mut first).map_err(io::Error::other)?;
        let desk = Arc::new(Desk::default());
        thread::Builder::new().name("disk".into()).spawn({
            let desk = desk.clone();
            move || desk.serve(reader)
        })?;
        Ok(Self { size, first, desk })
    }
}

impl fmt::Debug for Threaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threaded").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.desk.lock().over = true;
        self.desk.asked.notify_one();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is asked for, until the image is dropped.
    fn serve(&self, mut reader: Reader) {
        let mut state = self.lock();
        while !state.over {
            let open = state.request.as_ref().filter(|request| request.answer.is_none());
            let Some((offset, len)) = open.map(|request| (request.offset, request.len)) else {
                state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let mut data = vec![0; len];
            let answer = reader(offset, &mut data).map(|()| data);
            state = self.lock();
            if let Some(request) = state.request.as_mut().filter(|request| request.is(offset, len)) {
                request.answer = Some(answer);
                if let Some(waker) = state.waker.clone() {
                    drop(state);
                    waker.wake();
                    state = self.lock();
                }
            }
        }
    }
}

impl DiskImage for Threaded {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        if let Some(first) = self.first.get(offset as usize..).and_then(|first| first.get(..buf.len())) {
            buf.copy_from_slice(first);
            return Poll::Ready(Ok(()));
        }
        let mut state = self.desk.lock();
        match state.request.take_if(|request| request.is(offset, buf.len()) && request.answer.is_some()) {
            Some(Request { answer: Some(answer), .. }) => {
                return Poll::Ready(answer.map(|data| buf.copy_from_slice(&data)));
            }
            _ if state.request.as_ref().is_some_and(|request| request.is(offset, buf.len())) => {}
            _ => {
                state.request = Some(Request { offset, len: buf.len(), answer: None });
                self.desk.asked.notify_one();
            }
        }
        Poll::Pending
    }

    fn wake_by(&self, waker: &Waker) {
        self.desk.lock().waker = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Wake;

    use super::*;

    /// Tells a test that it has been woken.
    struct Bell(Mutex<mpsc::Sender<()>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().send(()).unwrap();
        }
    }

    /// An image whose bytes are their offsets, which reads when the test says so; and when it has.
    fn image() -> (Threaded, mpsc::Sender<()>, mpsc::Receiver<()>) {
        let (go, gate) = mpsc::channel();
        let reader = move |offset: u64, buf: &mut [u8]| {
            if offset > 0 {
                _ = gate.recv();
            }
            if offset == 4096 {
                return Err(DiskImageError("broken".into()));
            }
            (offset..).zip(buf).for_each(|(at, byte)| *byte = at as u8);
            Ok(())
        };
        let image = Threaded::new(8192, Box::new(reader)).unwrap();
        let (sender, bell) = mpsc::channel();
        image.wake_by(&Arc::new(Bell(Mutex::new(sender))).into());
        (image, go, bell)
    }

    #[test]
    fn the_first_sector_is_there_at_once() {
        let (image, ..) = image();
        let mut buf = [0; 512];
        assert_eq!(image.read(0, &mut buf), Poll::Ready(Ok(())));
        assert_eq!((buf[1], buf[511]), (1, 255));
    }

    #[test]
    fn what_is_read_comes_later_and_wakes() {
        let (image, go, bell) = image();
        let mut buf = [0; 512];
        for _ in 0..3 {
            assert_eq!(image.read(1024, &mut buf), Poll::Pending);
        }
        go.send(()).unwrap();
        bell.recv().unwrap();
        assert_eq!(image.read(1024, &mut buf), Poll::Ready(Ok(())));
        assert_eq!((buf[1], buf[511]), (1, 255));
        assert_eq!(image.read(4096, &mut buf), Poll::Pending);
        go.send(()).unwrap();
        bell.recv().unwrap();
        assert_eq!(image.read(4096, &mut buf), Poll::Ready(Err(DiskImageError("broken".into()))));
    }

    #[test]
    fn a_read_that_is_given_up_answers_no_other() {
        let (image, go, bell) = image();
        let (mut given_up, mut buf) = ([0; 512], [0; 256]);
        assert_eq!(image.read(1024, &mut given_up), Poll::Pending);
        assert_eq!(image.read(1025, &mut buf), Poll::Pending);
        go.send(()).unwrap();
        go.send(()).unwrap();
        bell.recv().unwrap();
        assert_eq!(image.read(1025, &mut buf), Poll::Ready(Ok(())));
        assert_eq!((buf[0], buf[255]), (1, 0));
    }
}
