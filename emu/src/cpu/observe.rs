//! What is dispatched, told to a program that counts it. Only with the feature `observe`, which gives the loop of
//! [`crate::dispatch`] in every build: what handlers jump to by themselves cannot be seen.

use std::any::Any;

use super::Cpu;

/// A program's side of it.
pub trait Observer: Any + Send {
    /// The handler at this address runs next.
    fn dispatched(&mut self, handler: usize);
}

impl Cpu {
    /// Has every handler that runs told to an observer from now on; gives back the one before.
    pub fn observe(&mut self, observer: Option<Box<dyn Observer>>) -> Option<Box<dyn Observer>> {
        std::mem::replace(&mut self.observer, observer)
    }

    pub(crate) fn dispatched(&mut self, handler: usize) {
        if let Some(observer) = &mut self.observer {
            observer.dispatched(handler);
        }
    }
}
