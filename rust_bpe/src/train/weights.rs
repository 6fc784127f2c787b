//! The count of the word at a position, without a word in memory for each position: a run of positions shares one.
//!
//! Words come with the most frequent ones first, so almost all positions lie in a few long runs (words that occur once,
//! twice, ...), and a list of places needs four bytes a place instead of eight or more.

#[derive(Default)]
pub struct Weights {
    runs: Vec<Run>,
    /// The run that holds the first position of each block.
    run_of_block: Vec<u32>,
}

struct Run {
    /// The first position behind it.
    end: usize,
    weight: u64,
}

/// 64 positions are about eight words, so where every word has a run of its own, few are passed over.
const BLOCK_LOG2: usize = 6;

impl Weights {
    /// Gives all positions from where the last call ended up to `end` this weight.
    pub fn push(&mut self, end: usize, weight: u64) {
        match self.runs.last_mut() {
            Some(run) if run.weight == weight => run.end = end,
            _ => self.runs.push(Run { end, weight }),
        }
        while self.run_of_block.len() << BLOCK_LOG2 < end {
            self.run_of_block.push(self.runs.len() as u32 - 1);
        }
    }

    #[inline(always)]
    pub fn get(&self, position: usize) -> u64 {
        let mut run = self.run_of_block[position >> BLOCK_LOG2] as usize;
        while self.runs[run].end <= position {
            run += 1;
        }
        self.runs[run].weight
    }
}

#[cfg(test)]
mod tests {
    use super::Weights;

    #[test]
    fn every_position_has_the_weight_of_its_run() {
        let mut weights = Weights::default();
        let mut expected = Vec::new();
        for i in 0..2000_u64 {
            let weight = if i < 1000 { i % 7 * (i % 3) } else { 3000 / i };
            expected.resize(expected.len() + (i * i % 29) as usize + 1, weight);
            weights.push(expected.len(), weight);
        }
        assert!((0..expected.len()).all(|position| weights.get(position) == expected[position]));
    }
}
