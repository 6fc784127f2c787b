//! Which pair is next: pairs by count and tie rule, whose counts may be too high.
//!
//! Counts only fall, so a pair whose count is out of date stands too far up, never too far down: whoever takes the top
//! compares it with the true count and puts it back lower if need be.
//!
//! Most pairs are never merged, so most are never compared with each other either: they wait in unordered drawers, one
//! for each eighth of an octave of counts, and only the highest drawer that is not empty has been made a heap.

use std::cmp::Ordering;

use super::pairs::{Pair, Pairs};
use super::tokens::Tokens;

pub struct Queue {
    /// The items of all drawers opened so far, as a binary heap.
    heap: Vec<Item>,
    /// The drawers still closed, all of them below.
    drawers: Vec<Vec<Item>>,
}

#[derive(Clone, Copy)]
pub struct Item {
    pub count: u64,
    tie_key: u64,
    pub pair: Pair,
}

impl Item {
    pub fn new(tokens: &Tokens, pair: Pair, count: u64) -> Self {
        Item { count, tie_key: tokens.tie_key(pair), pair }
    }

    #[inline]
    fn is_before(&self, other: &Item, tokens: &Tokens) -> bool {
        let by_key = self.count.cmp(&other.count).then(self.tie_key.cmp(&other.tie_key));
        by_key.then_with(|| tokens.compare(self.pair, other.pair)) == Ordering::Greater
    }
}

impl Queue {
    pub fn new() -> Self {
        Queue { heap: Vec::new(), drawers: vec![Vec::new(); drawer(u64::MAX) + 1] }
    }

    pub fn push(&mut self, item: Item, tokens: &Tokens) {
        match self.drawers.get_mut(drawer(item.count)) {
            Some(drawer) => drawer.push(item),
            None => self.push_heap(item, tokens),
        }
    }

    /// The first pair by the counts noted. Opens drawers when the heap is empty.
    pub fn peek(&mut self, pairs: &Pairs, tokens: &Tokens) -> Option<&Item> {
        while self.heap.is_empty() {
            let drawer = self.drawers.pop()?;
            self.put_back(&drawer, pairs, tokens);
        }
        self.heap.first()
    }

    /// Those that may be peeked at next, some of them in the order in which they will come.
    pub fn upcoming(&self) -> &[Item] {
        &self.heap[..self.heap.len().min(3)]
    }

    /// Looks at the true counts of all items of a drawer, many of them at a time, before any is compared: most of those
    /// that have waited long belong further down or nowhere.
    fn put_back(&mut self, drawer: &[Item], pairs: &Pairs, tokens: &Tokens) {
        const AHEAD: usize = 16;
        for (i, &item) in drawer.iter().enumerate() {
            if let Some(later) = drawer.get(i + AHEAD) {
                pairs.foresee(later.pair);
            }
            let count = pairs.count(item.pair);
            if count >= pairs.threshold() {
                self.push(Item { count, ..item }, tokens);
            }
        }
    }

    /// Takes away what was peeked at.
    pub fn pop(&mut self, tokens: &Tokens) {
        if let Some(last) = self.heap.pop()
            && !self.heap.is_empty()
        {
            self.sink(last, tokens);
        }
    }

    /// Gives what was peeked at a lower count.
    pub fn lower(&mut self, count: u64, tokens: &Tokens) {
        let item = Item { count, ..self.heap[0] };
        if drawer(count) < self.drawers.len() {
            self.pop(tokens);
            self.push(item, tokens);
        } else {
            self.sink(item, tokens);
        }
    }

    fn push_heap(&mut self, item: Item, tokens: &Tokens) {
        self.heap.push(item);
        let mut hole = self.heap.len() - 1;
        while hole > 0 {
            let parent = (hole - 1) / 2;
            if !item.is_before(&self.heap[parent], tokens) {
                break;
            }
            self.heap[hole] = self.heap[parent];
            hole = parent;
        }
        self.heap[hole] = item;
    }

    /// Puts `item` into the free place at the top, and from there where it belongs.
    fn sink(&mut self, item: Item, tokens: &Tokens) {
        let mut hole = 0;
        loop {
            let mut child = 2 * hole + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].is_before(&self.heap[child], tokens) {
                child += 1;
            }
            if !self.heap[child].is_before(&item, tokens) {
                break;
            }
            self.heap[hole] = self.heap[child];
            hole = child;
        }
        self.heap[hole] = item;
    }
}

/// The drawer of a count: its highest bit and the three below it, in the order of counts.
fn drawer(count: u64) -> usize {
    let exponent = (count | 8).ilog2();
    ((exponent as usize - 3) << 3) + (count >> (exponent - 3)) as usize
}

#[cfg(test)]
mod tests {
    use super::drawer;

    #[test]
    fn drawers_are_in_the_order_of_counts() {
        let counts =
            (0..5000).chain((13..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))]));
        let drawers: Vec<usize> = counts.chain([u64::MAX]).map(drawer).collect();
        assert!(drawers.is_sorted());
        assert!((0..16).all(|count| drawer(count) == count as usize) && drawer(16) == drawer(17));
    }
}
