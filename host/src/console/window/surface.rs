//! Where a picture is drawn: by the graphics adapter where there is one, else by the processor.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use env86_core::Frame;
#[cfg(feature = "adapter")]
use pixels::{Pixels, PixelsBuilder, ScalingMode, SurfaceTexture};
use softbuffer::SoftBufferError;
#[cfg(feature = "adapter")]
use tracing::{debug, warn};
use winit::dpi::PhysicalSize;
use winit::window::Window;

use crate::console::scale::{Scaler, Shape};

/// How many times in a row a graphics adapter may say that it cannot draw on the window as it is.
#[cfg(feature = "adapter")]
const REFUSALS: u32 = 100;

type Software = softbuffer::Surface<Arc<Window>, Arc<Window>>;

/// Something that shows pictures in a window.
pub(super) enum Surface {
    #[cfg(feature = "adapter")]
    Adapter(Box<Adapter>),
    Processor(Box<Software>, Scaler),
}

impl Surface {
    /// A surface for a window and pictures of this size.
    #[cfg_attr(not(feature = "adapter"), allow(unused_variables, reason = "the processor draws any size"))]
    pub fn new(window: &Arc<Window>, picture: (usize, usize)) -> Result<Self, SoftBufferError> {
        #[cfg(feature = "adapter")]
        if let Some(adapter) = Self::adapter(window, picture) {
            return Ok(adapter);
        }
        Self::processor(window)
    }

    #[cfg(feature = "adapter")]
    fn adapter(window: &Arc<Window>, (width, height): (usize, usize)) -> Option<Self> {
        let size = window.inner_size();
        let texture = SurfaceTexture::new(size.width.max(1), size.height.max(1), window.clone());
        match PixelsBuilder::new(width as u32, height as u32, texture).build() {
            Ok(mut pixels) => {
                debug!(target: "window", adapter = ?pixels.adapter().get_info());
                pixels.set_scaling_mode(ScalingMode::Fill);
                let (scaler, shaped, refusals) = Default::default();
                Some(Self::Adapter(Box::new(Adapter { pixels, size, scaler, shaped, refusals })))
            }
            Err(error) => {
                debug!(target: "window", %error, "No graphics adapter; the processor draws");
                None
            }
        }
    }

    fn processor(window: &Arc<Window>) -> Result<Self, SoftBufferError> {
        let context = softbuffer::Context::new(window.clone())?;
        let surface = softbuffer::Surface::new(&context, window.clone())?;
        Ok(Self::Processor(Box::new(surface), Scaler::default()))
    }

    /// Shows a picture, of which these lines have changed since the last one. If the adapter is lost, the
    /// processor goes on.
    pub fn show(
        &mut self,
        window: &Arc<Window>,
        size: PhysicalSize<u32>,
        frame: &Frame,
        shape: Shape,
        changed: Range<usize>,
    ) -> Result<(), SoftBufferError> {
        let (Some(width), Some(height)) = (NonZeroU32::new(size.width), NonZeroU32::new(size.height)) else {
            return Ok(());
        };
        #[cfg(feature = "adapter")]
        if let Self::Adapter(adapter) = self {
            window.pre_present_notify();
            match adapter.show(window, size, frame, shape, changed.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => warn!(target: "window", error, "The graphics adapter is lost"),
            }
            *self = Self::processor(window)?;
        }
        #[cfg_attr(not(feature = "adapter"), allow(irrefutable_let_patterns, reason = "there is no other"))]
        if let Self::Processor(surface, scaler) = self {
            surface.resize(width, height)?;
            let mut buffer = surface.buffer_mut()?;
            let keeps = buffer.age() == 1;
            scaler.shape = shape;
            scaler.draw(frame, changed, size.into(), keeps, &mut buffer);
            window.pre_present_notify();
            buffer.present()?;
        }
        Ok(())
    }
}

/// What the graphics adapter brings to the window's size.
#[cfg(feature = "adapter")]
pub(super) struct Adapter {
    pixels: Pixels<'static>,
    /// The window's size that it is made for.
    size: PhysicalSize<u32>,
    scaler: Scaler,
    /// The picture in a monitor's shape, if that is not its own: the library keeps a picture's dots square.
    shaped: Vec<u32>,
    /// See [`REFUSALS`].
    refusals: u32,
}

#[cfg(feature = "adapter")]
impl Adapter {
    fn show(
        &mut self,
        window: &Window,
        size: PhysicalSize<u32>,
        frame: &Frame,
        shape: Shape,
        changed: Range<usize>,
    ) -> Result<(), String> {
        let own = (frame.width, frame.height);
        let (width, height) = shape.least(own);
        let extent = self.pixels.context().texture_extent;
        if (extent.width as usize, extent.height as usize) != (width, height) {
            self.pixels.resize_buffer(width as u32, height as u32).map_err(|error| error.to_string())?;
        }
        if self.size != size {
            self.fit(size)?;
        }
        if (width, height) == own {
            self.shaped.clear();
            self.pixels.frame_mut().copy_from_slice(frame.pixels.as_flattened());
        } else {
            let keeps = self.shaped.len() == width * height;
            self.shaped.resize(width * height, 0);
            self.scaler.shape = shape;
            self.scaler.draw(frame, changed, (width as u32, height as u32), keeps, &mut self.shaped);
            for (out, pixel) in self.pixels.frame_mut().chunks_exact_mut(4).zip(&self.shaped) {
                let [_, red, green, blue] = pixel.to_be_bytes();
                out.copy_from_slice(&[red, green, blue, 0xff]);
            }
        }
        self.render(window)
    }

    /// Makes the surface of this size.
    fn fit(&mut self, size: PhysicalSize<u32>) -> Result<(), String> {
        self.size = size;
        let (width, height) = (size.width.max(1), size.height.max(1));
        self.pixels.resize_surface(width, height).map_err(|error| error.to_string())
    }

    fn render(&mut self, window: &Window) -> Result<(), String> {
        match self.pixels.render() {
            Ok(()) => self.refusals = 0,
            // The window may have another size already than we have been told.
            Err(pixels::Error::Surface(refusal)) if self.refusals < REFUSALS => {
                debug!(target: "window", %refusal, "Drawn once more");
                self.refusals += 1;
                self.fit(window.inner_size())?;
                window.request_redraw();
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}
