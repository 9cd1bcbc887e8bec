//! The live screen of services: what it knows ([`Board`]), and how that is drawn ([`draw`]). No terminal and no clock here.

mod board;
mod screen;

pub use board::{Board, Order, Sample, samples};
pub use screen::draw;
