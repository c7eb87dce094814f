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
    let exact = |weight: &u64| u128::from(whole) * u128::from(*weight);
    let mut parts: SmallVec<[u64; 8]> =
        weights.iter().map(|weight| u64::try_from(exact(weight) / total).unwrap_or(u64::MAX)).collect();
    let mut missing = whole.saturating_sub(parts.iter().sum());
    if missing == 0 {
        return parts;
    }
    let mut order: SmallVec<[usize; 8]> = (0..weights.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(weights.get(*index).map_or(0, |weight| exact(weight) % total)));
    for index in order {
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
