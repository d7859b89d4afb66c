//! The order of variants within a round: random, so that none always follows the same other, and repeatable from
//! the seed that is printed.

/// `splitmix64`, which is enough to mix an order and needs no dependency. See Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub(crate) struct Shuffle {
    state: u64,
}

impl Shuffle {
    /// From a seed; the same seed gives the same orders.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The numbers below `count`, in a new order (Fisher and Yates). The bias of the remainder is one in 2^58 for
    /// the handful of variants there are.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let below = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            let chosen = usize::try_from(self.next() % below).unwrap_or(0);
            order.swap(last, chosen);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_order_has_every_variant_once() {
        let mut shuffle = Shuffle::new(1);
        for count in 0..20 {
            let order: BTreeSet<usize> = shuffle.order(count).into_iter().collect();
            assert_eq!(order, (0..count).collect());
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_orders_and_another_seed_others() {
        let orders = |seed| {
            let mut shuffle = Shuffle::new(seed);
            (0..10).map(|_| shuffle.order(12)).collect::<Vec<_>>()
        };
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
    }

    #[test]
    fn every_variant_comes_first_sometimes() {
        let mut shuffle = Shuffle::new(3);
        let first: BTreeSet<usize> = (0..500).map(|_| shuffle.order(8)[0]).collect();
        assert_eq!(first.len(), 8);
    }
}
