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

type Software = softbuffer::Surface<Arc<Window>, Arc<Window>>;

/// Something that shows pictures in a window.
pub(super) enum Surface {
    /// With the size that it was made for.
    #[cfg(feature = "adapter")]
    Adapter(Box<Pixels<'static>>, PhysicalSize<u32>),
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
                Some(Self::Adapter(Box::new(pixels), size))
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

    /// Pictures can have the shape of a monitor.
    pub fn has_shapes(&self) -> bool {
        match self {
            // The library keeps a picture's dots square.
            #[cfg(feature = "adapter")]
            Self::Adapter(..) => false,
            Self::Processor(..) => true,
        }
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
        if let Self::Adapter(pixels, made_for) = self {
            let resized = std::mem::replace(made_for, size) != size;
            window.pre_present_notify();
            match show_by_adapter(pixels, resized.then_some(size), frame) {
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

#[cfg(feature = "adapter")]
fn show_by_adapter(
    pixels: &mut Pixels,
    resized: Option<PhysicalSize<u32>>,
    frame: &Frame,
) -> Result<(), String> {
    let extent = pixels.context().texture_extent;
    if (extent.width as usize, extent.height as usize) != (frame.width, frame.height) {
        pixels.resize_buffer(frame.width as u32, frame.height as u32).map_err(|error| error.to_string())?;
    }
    if let Some(size) = resized {
        pixels.resize_surface(size.width, size.height).map_err(|error| error.to_string())?;
    }
    pixels.frame_mut().copy_from_slice(frame.pixels.as_flattened());
    pixels.render().map_err(|error| error.to_string())
}
