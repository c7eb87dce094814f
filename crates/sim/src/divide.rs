//! How a batch's time is divided among its tasks, written out once more: what checks the scheduler's books must not share
//! its arithmetic.

/// Parts of `whole` by weight that add up to it: the whole nanoseconds first, then one each to those with the largest rest,
/// of equal ones to the earlier. Weights that are all zero count as equal.
pub(crate) fn divide(whole: u64, weights: &[u64]) -> Vec<u64> {
    let weigh = |weight: &u64| if weights.iter().any(|&any| any > 0) { u128::from(*weight) } else { 1 };
    let total: u128 = weights.iter().map(weigh).sum();
    let products = weights.iter().map(|weight| u128::from(whole) * weigh(weight));
    // The part, and by how much of `total` it falls short.
    let mut parts: Vec<(u64, u128)> =
        products.map(|product| ((product / total.max(1)) as u64, product % total.max(1))).collect();
    let given: u64 = parts.iter().map(|&(part, _)| part).sum();
    for _ in given..whole {
        let largest = parts.iter().enumerate().max_by_key(|&(index, &(_, rest))| (rest, std::cmp::Reverse(index)));
        let Some(index) = largest.map(|(index, _)| index) else { break };
        if let Some((part, rest)) = parts.get_mut(index) {
            *part += 1;
            *rest = 0;
        }
    }
    parts.into_iter().map(|(part, _)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_and_add_up() {
        assert_eq!(divide(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(divide(10, &[1, 2, 3]), [2, 3, 5]);
        assert_eq!(divide(5, &[0, 0]), [3, 2]);
        assert_eq!(divide(0, &[7, 9]), [0, 0]);
        assert!(divide(5, &[]).is_empty());
    }
}
