//! Rotary positions: neighbouring features of a head, a pair, turned by an angle of the position.

use crate::kernels::lanes::{Aligned, LANES, black_box, each};

/// The angles of all positions, for each feature of a pair: its own factor, the cosine, and its partner's, the sine of
/// one sign for the first and of the other for the second.
pub struct Turns {
    own: Aligned,
    partner: Aligned,
}

impl Turns {
    /// Of cosine and sine of each position's angles, one after another.
    pub fn new(angles: &[f32]) -> Self {
        let [mut own, mut partner] = [Aligned::zeros(angles.len()), Aligned::zeros(angles.len())];
        let places = own.as_chunks_mut::<2>().0.iter_mut().zip(partner.as_chunks_mut::<2>().0);
        for ([cosine, sine], (own, partner)) in angles.as_chunks::<2>().0.iter().zip(places) {
            (*own, *partner) = ([*cosine; 2], [-sine, *sine]);
        }
        Self { own, partner }
    }

    /// Turns the head of a position.
    #[inline(always)]
    pub fn turn(&self, head: &mut [f32], position: usize) {
        self.by(head, position, 1.0);
    }

    /// The inverse, and the gradient.
    #[inline(always)]
    pub fn turn_back(&self, head: &mut [f32], position: usize) {
        self.by(head, position, -1.0);
    }

    #[inline(always)]
    fn by(&self, head: &mut [f32], position: usize, sign: f32) {
        let place = position * head.len();
        let own = self.own[place..][..head.len()].as_chunks::<LANES>().0;
        let partner = self.partner[place..][..head.len()].as_chunks::<LANES>().0;
        for ((chunk, own), partner) in head.as_chunks_mut::<LANES>().0.iter_mut().zip(own).zip(partner) {
            *chunk = each!(LANES, |lane| chunk[lane] * own[lane] + chunk[lane ^ 1] * (sign * partner[lane]));
            black_box(());
        }
    }
}
