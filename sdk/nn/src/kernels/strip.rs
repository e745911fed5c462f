//! Columns of a row-major matrix as the kernels read rows of A along K.

/// `to[k * height + r] = from[k * stride + r]` for `steps` rows of `width` values, at most `height`; beyond them `to` may have any values.
pub(crate) fn strip(
    (to, height): (&mut [f32], usize),
    (from, stride): (&[f32], usize),
    [steps, width]: [usize; 2],
) {
    if steps == 0 || width == 0 {
        return;
    }
    assert!(width <= height && to.len() >= steps * height);
    assert!(from.len() >= (steps - 1) * stride + width);
    let wide = from.len() >= (steps - 1) * stride + height;
    // SAFETY: both reach so far, as was just seen.
    unsafe {
        match height {
            4 if wide => copy::<4>(to.as_mut_ptr(), (from.as_ptr(), stride), steps),
            6 if wide => copy::<6>(to.as_mut_ptr(), (from.as_ptr(), stride), steps),
            12 if wide => copy::<12>(to.as_mut_ptr(), (from.as_ptr(), stride), steps),
            _ => {
                for (to, from) in to.chunks_mut(height).zip(from.chunks(stride)).take(steps) {
                    to[..width].copy_from_slice(&from[..width]);
                }
            }
        }
    }
}

/// # Safety
/// `to` has `steps` times H values, `from` has H at each of as many strides.
#[inline(always)]
unsafe fn copy<const H: usize>(
    mut to: *mut f32,
    (mut from, stride): (*const f32, usize),
    steps: usize,
) {
    for _ in 0..steps {
        // SAFETY: the caller's; behind the last step nothing is read.
        unsafe {
            to.cast::<[f32; H]>().write(from.cast::<[f32; H]>().read());
            to = to.add(H);
            from = from.wrapping_add(stride);
        }
    }
}
