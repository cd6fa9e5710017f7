/* Fold a tile of logits into the running sums of squeeze.kernels.online, reading each logit once.
 *
 * Compiled on first use by squeeze.kernels.native with the system's C compiler; plain C that the
 * compiler vectorises, no intrinsics. Rows are shared out between OpenMP threads. A row is walked
 * in blocks of BLOCK logits that stay in the first-level cache; sums over a block are float32, at
 * most BLOCK / lanes terms to a lane, sums over blocks are float64.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCK = 1024 };
enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

/* Below this a shifted logit counts as this: e^-87 is the last normal float32. */
#define FLOOR 87.0f
/* A block is summed relative to the maximum of the blocks before it. When its own maximum is
 * higher by more than this, it is summed again relative to its own: terms stay below e^4. */
#define SLACK 4.0f

typedef struct {
    float sum, shifted, square, maximum, check;
} Block;

typedef struct {
    double maximum, sum, shifted, square;
    int64_t argmax;
} Row;

static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* e^x for -87 <= x <= 4: 2^n by the exponent's bits, times the degree-5 polynomial with the
 * smallest relative error against 2^f on |f| <= 1/2 and value 1 at 0: 9.3e-8, with its float32
 * roundings 1.5e-7 = 2.5 * 2^-24. */
static inline float exp_bounded(float x) {
    const float magic = 12582912.0f, log2e = 1.44269504f; /* 1.5 * 2^23 rounds to an integer */
    float t = __builtin_fmaf(x, log2e, magic);
    float f = __builtin_fmaf(x, log2e, -(t - magic));
    float p = 1.326952130e-3f;
    p = __builtin_fmaf(p, f, 9.671291336e-3f);
    p = __builtin_fmaf(p, f, 5.550710857e-2f);
    p = __builtin_fmaf(p, f, 2.402224690e-1f);
    p = __builtin_fmaf(p, f, 6.931470037e-1f);
    p = __builtin_fmaf(p, f, 1.0f);
    return as_float(as_bits(p) + (as_bits(t) << 23));
}

/* max(x, -FLOOR) on the bits: as unsigned integers, negative floats grow with their magnitude and
 * lie above all positive ones. */
static inline float floored(float x) {
    const uint32_t limit = as_bits(-FLOOR);
    uint32_t bits = as_bits(x);
    return as_float(bits > limit ? limit : bits);
}

static Block sum_block(const float *z, int64_t n, float shift) {
    float sum = 0, shifted = 0, square = 0, check = 0, maximum = -INFINITY;
#pragma omp simd reduction(+ : sum, shifted, square, check) reduction(max : maximum)
    for (int64_t i = 0; i < n; i++) {
        float value = z[i], x = value - shift;
        maximum = value > maximum ? value : maximum;
        check += x; /* NaN when any logit is, which the maximum does not show */
        x = floored(x);
        float e = exp_bounded(x);
        sum += e;
        shifted = __builtin_fmaf(x, e, shifted);
        square = __builtin_fmaf(e, e, square);
    }
    return (Block){sum, shifted, square, maximum, check};
}

static float max_block(const float *z, int64_t n) {
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (int64_t i = 0; i < n; i++) maximum = z[i] > maximum ? z[i] : maximum;
    return maximum;
}

/* Express sums relative to `from` relative to `to` >= `from`. */
static void rescale(double from, double to, double *sum, double *shifted, double *square) {
    if (from == to) return;
    double d = from - to, decay = exp(d);
    *shifted = decay > 0 ? decay * (*shifted + d * *sum) : 0;
    *sum *= decay;
    *square *= decay * decay;
}

static void spoil(Row *row) {
    row->maximum = row->sum = row->shifted = row->square = NAN;
}

static void fold_block(Row *row, const float *z, int64_t n, int64_t first_column) {
    float shift = row->maximum > -INFINITY ? (float)row->maximum : max_block(z, n);
    if (shift == -INFINITY) shift = 0; /* only -inf so far: -inf - 0 stays -inf */
    Block block = sum_block(z, n, shift);
    if (block.maximum > shift + SLACK) {
        shift = block.maximum;
        block = sum_block(z, n, shift);
    }
    if (isnan(block.check) || block.maximum == INFINITY) {
        spoil(row);
        return;
    }
    if (block.maximum == -INFINITY) return;
    double sum = block.sum, shifted = block.shifted, square = block.square;
    double maximum = fmax(row->maximum, block.maximum);
    rescale(shift, maximum, &sum, &shifted, &square);
    rescale(row->maximum, maximum, &row->sum, &row->shifted, &row->square);
    if (block.maximum > row->maximum) {
        int64_t i = 0;
        while (z[i] != block.maximum) i++;
        row->argmax = first_column + i;
    }
    row->maximum = maximum;
    row->sum += sum;
    row->shifted += shifted;
    row->square += square;
}

static inline float from_half(uint16_t half) {
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0; /* inf or NaN */
    return as_float(as_bits(as_float(magnitude) * 0x1p112f) | special | sign);
}

static void load(const void *source, int dtype, int64_t start, int64_t n, float *out) {
    if (dtype == FLOAT32) {
        memcpy(out, (const float *)source + start, n * sizeof(float));
    } else if (dtype == BFLOAT16) {
        const uint16_t *values = (const uint16_t *)source + start;
        for (int64_t i = 0; i < n; i++) out[i] = as_float((uint32_t)values[i] << 16);
    } else {
        const uint16_t *values = (const uint16_t *)source + start;
        for (int64_t i = 0; i < n; i++) out[i] = from_half(values[i]);
    }
}

/* z <- cap * tanh(gain * z); cap 0 means z <- gain * z. tanh(u) = (1 - t) / (1 + t) with
 * t = e^(-2|u|), to an absolute error of a few cap * 2^-24. */
static void transform(float *z, int64_t n, float gain, float cap) {
    if (cap == 0) {
        for (int64_t i = 0; i < n; i++) z[i] *= gain;
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float u = z[i] * gain, t = exp_bounded(floored(-2 * fabsf(u)));
        z[i] = u != u ? u : copysignf(cap * (1 - t) / (1 + t), u);
    }
}

void squeeze_fold(
    const void *tile, int dtype, int64_t n_rows, int64_t n_columns, int64_t row_stride,
    const int64_t *rows, const float *bias, float gain, float cap,
    const int64_t *targets, int64_t first_column, int n_threads,
    float *maximum, int64_t *argmax, float *sum, float *shifted, float *square,
    float *target_logit
) {
    const int direct = dtype == FLOAT32 && bias == 0 && gain == 1 && cap == 0;
    const int64_t size = dtype == FLOAT32 ? 4 : 2;
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        const void *source = (const char *)tile + (rows ? rows[r] : r) * row_stride * size;
        Row row = {maximum[r], sum[r], shifted[r], square[r], argmax[r]};
        float buffer[BLOCK];
        int64_t target = targets[r] - first_column;
        for (int64_t start = 0; start < n_columns && !isnan(row.maximum); start += BLOCK) {
            int64_t n = n_columns - start < BLOCK ? n_columns - start : BLOCK;
            const float *z = (const float *)source + start;
            if (!direct) {
                load(source, dtype, start, n, buffer);
                if (bias)
                    for (int64_t i = 0; i < n; i++) buffer[i] += bias[start + i];
                if (gain != 1 || cap != 0) transform(buffer, n, gain, cap);
                z = buffer;
            }
            fold_block(&row, z, n, first_column + start);
            if (target >= start && target < start + n) target_logit[r] = z[target - start];
        }
        maximum[r] = (float)row.maximum;
        argmax[r] = row.argmax;
        sum[r] = (float)row.sum;
        shifted[r] = (float)row.shifted;
        square[r] = (float)row.square;
    }
}
