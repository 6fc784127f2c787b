//! Independent parts of one work, each on a thread of its own.

use std::thread;

/// `work` of each of `parts`, in their order. The first part is done by the calling thread.
pub fn map<P: Send, R: Send>(parts: impl IntoIterator<Item = P>, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let mut parts = parts.into_iter();
    let Some(own) = parts.next() else { return Vec::new() };
    let work = &work;
    thread::scope(|scope| {
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let mut results = vec![work(own)];
        for worker in workers {
            // A panic in a worker would be a defect of its own, and goes on here.
            results.push(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::map;

    #[test]
    fn results_come_in_the_order_of_the_parts() {
        assert_eq!(map(0..7, |part| part * part), [0, 1, 4, 9, 16, 25, 36]);
        assert!(map(0..0, |part: u32| part).is_empty());
    }
}
