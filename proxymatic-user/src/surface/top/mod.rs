//! The live screen of services: what it knows ([`Board`]), and how that is drawn ([`draw`]). No terminal and no clock here.

mod model;
mod view;

pub use model::{Board, Order, Sample, samples};
pub use view::draw;
