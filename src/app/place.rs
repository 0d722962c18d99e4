//! Where the window opens: as it was closed, and within its screen.

use serde::{Deserialize, Serialize};
use winit::dpi::{LogicalSize, PhysicalPosition};
use winit::monitor::MonitorHandle;
use winit::window::{Window, WindowAttributes};

/// Size of the first window, in points.
const FIRST_SIZE: (f64, f64) = (1280.0, 800.0);

/// The smallest size, in points.
const LEAST: (f64, f64) = (640.0, 420.0);

/// Share of the screen that a window takes at most, so that bars of the desktop stay free.
const SHARE: f64 = 0.92;

/// Size and position of the window when it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Size of its content in points.
    pub size: (f64, f64),
    /// Position in pixels. Wayland tells none.
    pub position: Option<(i32, i32)>,
    pub is_maximized: bool,
}

impl Place {
    /// The place of a window. `None` if it has no size, for example while it is minimised.
    pub fn of(window: &Window) -> Option<Self> {
        let size = window.inner_size().to_logical::<f64>(window.scale_factor());
        let has_size = size.width >= 1.0 && size.height >= 1.0 && window.is_minimized() != Some(true);
        has_size.then(|| Self {
            size: (size.width, size.height),
            position: window.outer_position().ok().map(|p| (p.x, p.y)),
            is_maximized: window.is_maximized(),
        })
    }

    /// The place after a change. A maximised window keeps the size that it has otherwise.
    pub fn updated(before: Option<Self>, now: Self) -> Self {
        match before {
            Some(before) if now.is_maximized => Self { is_maximized: true, ..before },
            _ => now,
        }
    }
}

/// A screen: its position and size in pixels, and pixels per point.
#[derive(Clone, Copy, Debug)]
struct Screen {
    position: (i32, i32),
    size: (u32, u32),
    scale: f64,
}

impl Screen {
    fn of(monitor: &MonitorHandle) -> Option<Self> {
        let (position, size) = (monitor.position(), monitor.size());
        let is_real = size.width > 0 && size.height > 0 && monitor.scale_factor() > 0.0;
        is_real.then(|| Self {
            position: (position.x, position.y),
            size: (size.width, size.height),
            scale: monitor.scale_factor(),
        })
    }

    /// Whether a position lies on this screen, with room for a part of the title bar.
    fn holds(&self, (x, y): (i32, i32)) -> bool {
        let within = |at: i32, from: i32, n: u32| {
            let offset = i64::from(at) - i64::from(from);
            (-32..i64::from(n) - 64).contains(&offset)
        };
        within(x, self.position.0, self.size.0) && within(y, self.position.1, self.size.1)
    }
}

/// The size in points and the position in pixels of a new window.
fn fitted(place: Option<Place>, screens: &[Screen]) -> ((f64, f64), Option<(i32, i32)>) {
    let position = place.and_then(|p| p.position).filter(|&at| screens.iter().any(|s| s.holds(at)));
    let screen = position.and_then(|at| screens.iter().find(|s| s.holds(at))).or(screens.first());
    let (width, height) = place.map_or(FIRST_SIZE, |p| p.size);
    let limit = |n: f64, least: f64, pixels: Option<u32>, scale: f64| {
        let most = pixels.map_or(f64::INFINITY, |pixels| SHARE * f64::from(pixels) / scale);
        n.max(least).min(most)
    };
    let scale = screen.map_or(1.0, |s| s.scale);
    let size = (
        limit(width, LEAST.0, screen.map(|s| s.size.0), scale),
        limit(height, LEAST.1, screen.map(|s| s.size.1), scale),
    );
    (size, position)
}

/// The attributes of a window that opens where it was closed, within its screen.
pub fn placed(
    attributes: WindowAttributes,
    place: Option<Place>,
    first: Option<MonitorHandle>,
    others: impl Iterator<Item = MonitorHandle>,
) -> WindowAttributes {
    let screens: Vec<Screen> = first.into_iter().chain(others).filter_map(|m| Screen::of(&m)).collect();
    let (size, position) = fitted(place, &screens);
    let least = (LEAST.0.min(size.0), LEAST.1.min(size.1));
    let attributes = attributes
        .with_inner_size(LogicalSize::new(size.0, size.1))
        .with_min_inner_size(LogicalSize::new(least.0, least.1))
        .with_maximized(place.is_some_and(|p| p.is_maximized));
    match position {
        Some((x, y)) => attributes.with_position(PhysicalPosition::new(x, y)),
        None => attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Screen = Screen { position: (0, 0), size: (1920, 1080), scale: 1.0 };
    const SMALL: Screen = Screen { position: (1920, 0), size: (1600, 1200), scale: 2.0 };

    fn place(size: (f64, f64), position: (i32, i32)) -> Option<Place> {
        Some(Place { size, position: Some(position), is_maximized: false })
    }

    #[test]
    fn a_window_is_no_larger_than_its_screen() {
        assert_eq!(fitted(None, &[]), (FIRST_SIZE, None));
        assert_eq!(fitted(None, &[LARGE]), (FIRST_SIZE, None));
        assert_eq!(fitted(None, &[SMALL]).0, (0.92 * 800.0, 0.92 * 600.0));
        assert_eq!(fitted(place((5000.0, 3000.0), (10, 10)), &[LARGE]).0, (0.92 * 1920.0, 0.92 * 1080.0));
        assert_eq!(fitted(place((10.0, 10.0), (10, 10)), &[LARGE]).0, LEAST);
    }

    #[test]
    fn a_window_returns_to_its_screen_if_it_is_still_there() {
        let was = place((700.0, 500.0), (2000, 40));
        assert_eq!(fitted(was, &[LARGE, SMALL]), ((700.0, 500.0), Some((2000, 40))));
        assert_eq!(fitted(was, &[LARGE]), ((700.0, 500.0), None), "the other screen is gone");
        let barely = place((700.0, 500.0), (1900, 40));
        assert_eq!(fitted(barely, &[LARGE]).1, None, "only a strip of it could be seen");
    }

    #[test]
    fn a_maximised_window_remembers_its_other_size() {
        let (before, now) =
            (place((700.0, 500.0), (5, 5)), Place { is_maximized: true, ..place((1920.0, 1080.0), (0, 0)).unwrap() });
        let kept = Place::updated(before, now);
        assert_eq!((kept.size, kept.position, kept.is_maximized), ((700.0, 500.0), Some((5, 5)), true));
        assert_eq!(Place::updated(None, now), now);
    }
}
