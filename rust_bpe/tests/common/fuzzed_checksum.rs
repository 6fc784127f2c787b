//! What the fuzz target of checksums checks of an input.

use rust_bpe::checksum::Sha256;
use sha2::Digest;

/// Pieces of two streams, hashed apart or together, give the digests of the library. A piece begins with how it is hashed and
/// repeated, and with the lengths of what the streams get.
pub fn checksum(data: &[u8]) {
    let mut ours = [Sha256::new(), Sha256::new()];
    let mut theirs = [sha2::Sha256::new(), sha2::Sha256::new()];
    let mut rest = data;
    while let [how, first, second, after @ ..] = rest {
        let (first, after) = after.split_at(after.len().min(usize::from(*first)));
        let (second, after) = after.split_at(after.len().min(usize::from(*second)));
        rest = after;
        let pieces = [first, second].map(|piece| piece.repeat(1 + usize::from(how / 16)));
        let [one, two] = &mut ours;
        match how % 3 {
            0 => {
                one.update(&pieces[0]);
                two.update(&pieces[1]);
            }
            1 => one.update_with(&pieces[0], two, &pieces[1]),
            _ => two.update_with(&pieces[1], one, &pieces[0]),
        }
        theirs.iter_mut().zip(&pieces).for_each(|(hash, piece)| hash.update(piece));
    }
    assert_eq!(ours.map(Sha256::finish), theirs.map(|hash| <[u8; 32]>::from(hash.finalize())));
}
