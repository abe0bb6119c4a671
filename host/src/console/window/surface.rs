//! Where a picture is drawn: by the graphics adapter where there is one, else by the processor.

use std::num::NonZeroU32;
use std::sync::Arc;

use env86_core::Frame;
#[cfg(feature = "adapter")]
use pixels::{Pixels, PixelsBuilder, ScalingMode, SurfaceTexture};
use softbuffer::SoftBufferError;
#[cfg(feature = "adapter")]
use tracing::{debug, warn};
use winit::dpi::PhysicalSize;
use winit::window::Window;

/// Around the picture.
const BORDER: u32 = 0;

/// Where the picture is in a window: in the middle, as large as it can be with its own proportions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Viewport {
    left: f64,
    top: f64,
    scale: f64,
    picture: (usize, usize),
}

impl Viewport {
    pub fn new(picture: (usize, usize), window: PhysicalSize<u32>) -> Self {
        let (width, height) = (picture.0.max(1) as f64, picture.1.max(1) as f64);
        let (across, down) = (f64::from(window.width), f64::from(window.height));
        let scale = (across / width).min(down / height).max(f64::MIN_POSITIVE);
        let (left, top) = ((across - width * scale) / 2.0, (down - height * scale) / 2.0);
        Self { left, top, scale, picture }
    }

    /// The place of a point of the window in the picture, each way as a part of FFFFh; the picture's edge
    /// for points beside it.
    pub fn place(&self, x: f64, y: f64) -> (u16, u16) {
        let part = |at: f64, of: usize| (at / self.scale / of.max(1) as f64 * 65_535.0) as u16;
        (part(x - self.left, self.picture.0), part(y - self.top, self.picture.1))
    }
}

type Software = softbuffer::Surface<Arc<Window>, Arc<Window>>;

/// Something that shows pictures in a window.
pub(super) enum Surface {
    /// With the size that it was made for.
    #[cfg(feature = "adapter")]
    Adapter(Box<Pixels<'static>>, PhysicalSize<u32>),
    Processor(Box<Software>),
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
        Ok(Self::Processor(Box::new(softbuffer::Surface::new(&context, window.clone())?)))
    }

    /// Shows a picture. If the adapter is lost, the processor goes on.
    pub fn show(&mut self, window: &Arc<Window>, frame: &Frame) -> Result<(), SoftBufferError> {
        let size = window.inner_size();
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
        if let Self::Processor(surface) = self {
            surface.resize(width, height)?;
            let mut buffer = surface.buffer_mut()?;
            scale(frame, size, &mut buffer);
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

/// Draws a picture as large as fits into a window, whose pixels are 00RRGGBBh.
fn scale(frame: &Frame, window: PhysicalSize<u32>, out: &mut [u32]) {
    let viewport = Viewport::new((frame.width, frame.height), window);
    let across = window.width as usize;
    let first = |edge: f64| edge.round().max(0.0) as usize;
    let (left, top) = (first(viewport.left), first(viewport.top));
    // The column of the picture that each column of the window shows.
    let at = |place: usize, edge: f64| (((place as f64 + 0.5 - edge) / viewport.scale).max(0.0)) as usize;
    let columns: Vec<usize> =
        (left..across).map(|x| at(x, viewport.left)).take_while(|column| *column < frame.width).collect();
    let mut drawn = None;
    for (y, start) in (0..).zip((0..out.len()).step_by(across.max(1))) {
        let line = at(y, viewport.top);
        if y < top || line >= frame.height {
            out[start..start + across].fill(BORDER);
            continue;
        }
        match drawn {
            // A line that is as the one above.
            Some((same, from)) if same == line => out.copy_within(from..from + across, start),
            _ => {
                let row = &mut out[start..start + across];
                row.fill(BORDER);
                let from = frame.line(line);
                for (to, column) in row[left..].iter_mut().zip(&columns) {
                    let [red, green, blue, _] = from[*column];
                    *to = u32::from_be_bytes([0, red, green, blue]);
                }
            }
        }
        drawn = Some((line, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Frame {
        Frame {
            width: 2,
            height: 2,
            pixels: vec![[1, 0, 0, 255], [2, 0, 0, 255], [3, 0, 0, 255], [4, 0, 0, 255]],
        }
    }

    fn shown(width: u32, height: u32) -> Vec<u32> {
        let mut out = vec![9; (width * height) as usize];
        scale(&picture(), PhysicalSize::new(width, height), &mut out);
        out.into_iter().map(|pixel| pixel >> 16).collect()
    }

    #[test]
    fn a_picture_is_scaled_to_the_window() {
        assert_eq!(shown(2, 2), [1, 2, 3, 4]);
        assert_eq!(shown(4, 4), [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]);
        assert_eq!(shown(4, 2), [0, 1, 2, 0, 0, 3, 4, 0]);
        assert_eq!(shown(2, 4), [0, 0, 1, 2, 3, 4, 0, 0]);
        for (width, height) in [(1, 1), (1, 7), (7, 1), (3, 5), (1000, 3)] {
            shown(width, height);
        }
    }

    #[test]
    fn a_point_of_the_window_is_one_of_the_picture() {
        let viewport = Viewport::new((640, 400), PhysicalSize::new(1280, 1000));
        assert_eq!(viewport.place(0.0, 100.0), (0, 0));
        assert_eq!(viewport.place(1280.0, 900.0), (0xffff, 0xffff));
        assert_eq!(viewport.place(640.0, 500.0), (32_767, 32_767));
        assert_eq!(viewport.place(-5.0, 5000.0), (0, 0xffff));
    }
}
