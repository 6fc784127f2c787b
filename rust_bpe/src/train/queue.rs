//! Which pair is next: a binary heap by count and tie rule, whose counts may be too high.
//!
//! Counts only fall, so an entry whose count is out of date stands too far up, never too far down: whoever takes the
//! top compares it with the true count and puts it back lower if need be.

use std::cmp::Ordering;

use super::pairs::Pair;
use super::tokens::Tokens;

#[derive(Default)]
pub struct Queue {
    heap: Vec<Item>,
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

    fn is_before(&self, other: &Item, tokens: &Tokens) -> bool {
        let by_key = self.count.cmp(&other.count).then(self.tie_key.cmp(&other.tie_key));
        by_key.then_with(|| tokens.compare(self.pair, other.pair)) == Ordering::Greater
    }
}

impl Queue {
    pub fn peek(&self) -> Option<&Item> {
        self.heap.first()
    }

    pub fn push(&mut self, item: Item, tokens: &Tokens) {
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

    pub fn pop(&mut self, tokens: &Tokens) {
        if let Some(last) = self.heap.pop()
            && !self.heap.is_empty()
        {
            self.sink(last, tokens);
        }
    }

    /// Gives the top another, lower count.
    pub fn lower(&mut self, count: u64, tokens: &Tokens) {
        let item = Item { count, ..self.heap[0] };
        self.sink(item, tokens);
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
