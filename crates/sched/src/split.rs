//! Dividing a whole exactly: the shares add up to it to the unit.

use smallvec::SmallVec;

/// Divides `whole` into shares proportional to `weights`, to the unit: the shares add up to the whole exactly (largest
/// remainder; ties go to the earlier one). Weights that are all zero count as equal.
pub fn split(whole: u64, weights: &[u64]) -> SmallVec<[u64; 8]> {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    if total == 0 {
        let ones: SmallVec<[u64; 8]> = weights.iter().map(|_| 1).collect();
        return if ones.is_empty() { ones } else { split(whole, &ones) };
    }
    // The quotient and the remainder of each; nearly always 64 bits are enough, and much quicker.
    let divide = |weight: u64| match (whole.checked_mul(weight), u64::try_from(total)) {
        (Some(exact), Ok(total)) => (exact / total, u128::from(exact % total)),
        _ => {
            let exact = u128::from(whole) * u128::from(weight);
            (u64::try_from(exact / total).unwrap_or(u64::MAX), exact % total)
        }
    };
    let mut parts = SmallVec::<[u64; 8]>::with_capacity(weights.len());
    let mut order = SmallVec::<[(u128, usize); 8]>::with_capacity(weights.len());
    for (index, &weight) in weights.iter().enumerate() {
        let (part, rest) = divide(weight);
        parts.push(part);
        order.push((rest, index));
    }
    let mut missing = whole.saturating_sub(parts.iter().sum());
    if missing == 0 {
        return parts;
    }
    order.sort_unstable_by_key(|&(rest, index)| (std::cmp::Reverse(rest), index));
    for (_, index) in order {
        if missing == 0 {
            break;
        }
        if let Some(part) = parts.get_mut(index) {
            *part += 1;
            missing -= 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_follow_the_weights(
            whole in 0_u64..u64::MAX / 2,
            weights in prop::collection::vec(0_u64..1 << 40, 1..20),
        ) {
            let shares = split(whole, &weights);
            prop_assert_eq!(shares.len(), weights.len());
            prop_assert_eq!(shares.iter().sum::<u64>(), whole);
            let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            if total > 0 {
                for (share, weight) in shares.iter().zip(&weights) {
                    let exact = (u128::from(whole) * u128::from(*weight)).checked_div(total).unwrap_or(0);
                    prop_assert!(u128::from(*share) == exact || u128::from(*share) == exact + 1);
                }
            }
        }
    }

    #[test]
    fn nothing_is_divided_into_nothing() {
        assert!(split(5, &[]).is_empty());
        assert_eq!(split(5, &[0, 0]).as_slice(), [3, 2]);
    }
}
