// The convolution where its operands lie: no windows are copied, and what pads the input is nowhere in memory.
//
//     y[n, g, o, j] = bias[g, o] + sum over c, t of  x[n, g, c, stride*j + dilation*t - lo] * w[g, o, c, t]
//     dw[g, o, c, t] =             sum over n, j of  x[n, g, c, stride*j + dilation*t - lo] * dy[n, g, o, j]
//
// (n sample, g group, o output channel in its group, c input channel in its group, j output position, t kernel tap.)
// Arrays lie in C order: x (n, g, c, *size), w (g, o, c, *kernel), dy (n, g, o, *out); y lies where its steps say.
//
// Both kernels follow one idea. What limits them is reading, so a thread reads a number once for as many products as
// its registers hold sums. And threads that follow each other work on positions that follow each other, so what a warp
// reads and writes together lies together in memory. Taps at the padding are skipped, not multiplied by zero: a weight
// that is not a number then reaches only the outputs that it belongs to.
//
// `direct.py` defines, in front of this file:
//
//     RANK      how many spatial axes there are, at least one
//     SAMPLES   how many samples of y a thread computes together, at most
//     CHANNELS  how many output channels of a group
//     TAPS      how many taps of dw
//     Index     the integer that counts elements: int, or long long where there are too many for it
//     Input     what x consists of
//     Number    what is multiplied and added: w, the bias and the partial sums of dw consist of it
//     Output    what y and dy consist of
//
// and writes what is handed over for each axis in the places of Y_STEP_... and AXIS_...

#ifdef __CUDACC__  // a compiler of CUDA; any other one brings a type of 16 bits and its conversions along
#include <cuda_fp16.h>
#endif

// ---- Numbers: `Number(value)` converts each from memory, and `Output(value)` back. ----

struct Half {
  __half value;
  __device__ explicit Half(float from) : value(__float2half(from)) {}
  __device__ operator float() const { return __half2float(value); }
};

struct BFloat16 {  // the upper half of a float
  unsigned short upper;
  union Bits {
    float value;
    unsigned int all;
  };
  __device__ explicit BFloat16(float from) {
    Bits bits;
    bits.value = from;
    const bool is_nan = from != from;  // rounding could carry it over to an infinity
    upper = is_nan ? 0x7FC0 : (bits.all + 0x7FFF + (bits.all >> 16 & 1)) >> 16;  // to nearest, ties to even
  }
  __device__ operator float() const {
    Bits bits;
    bits.all = (unsigned int)upper << 16;
    return bits.value;
  }
};

template <class Real>
struct alignas(2 * sizeof(Real)) Complex {  // both parts are read at once
  Real re, im;
  Complex() = default;
  __device__ Complex(Real re, Real im = 0) : re(re), im(im) {}
  template <class Other>
  __device__ explicit Complex(Complex<Other> from) : re(from.re), im(from.im) {}
};

template <class Real>
__device__ __forceinline__ Complex<Real> operator+(Complex<Real> a, Complex<Real> b) {
  return Complex<Real>(a.re + b.re, a.im + b.im);
}

template <class Real>
__device__ __forceinline__ void add_product(Complex<Real>& sum, Complex<Real> a, Complex<Real> b) {
  sum.re += a.re * b.re;
  sum.re -= a.im * b.im;
  sum.im += a.re * b.im;
  sum.im += a.im * b.re;
}

template <class Real>
__device__ __forceinline__ void add_product(Real& sum, Real a, Real b) {
  sum += a * b;
}

// ---- Axes ----

struct Axes {  // the spatial axes of the convolution
  Index size[RANK], kernel[RANK], stride[RANK], dilation[RANK], lo[RANK], out[RANK];
};

struct Steps {  // how many elements lie from one place along each spatial axis to the next
  Index along[RANK];
  Index all;  // how many elements there are in all places

  __device__ __forceinline__ explicit Steps(const Index (&sizes)[RANK]) : all(1) {
    for (int axis = RANK - 1; axis >= 0; all *= sizes[axis--]) along[axis] = all;
  }
};

__device__ __forceinline__ Index take(Index& rest, Index count) {  // takes the last digit away from a number
  const Index digit = rest % count;
  rest /= count;
  return digit;
}

__device__ __forceinline__ Index how_many(Index all, Index each) { return (all + each - 1) / each; }

__device__ __forceinline__ Index smaller(Index a, Index b) { return a < b ? a : b; }

__device__ __forceinline__ Index this_thread() { return (Index)blockIdx.x * (Index)blockDim.x + (Index)threadIdx.x; }

// ---- y: a thread computes one position, of up to four samples and of up to CHANNELS output channels ----

template <int N>
struct Samples {  // how many, known to the compiler: it then keeps the sums in registers
  static const int count = N;
};

struct Window {  // what one position meets
  Index first[RANK], last[RANK];    // the taps that meet an input: from the first to before the last
  Index x_step[RANK], w_step[RANK]; // from one tap to the next
  Index x_sample;                   // from one sample to the next
  Index w_channel[CHANNELS];        // from the weights of the first output channel to those of each
};

// Adds the products of the taps along one axis and those after it; `x_at` and `w_at` are where tap 0 of these is.
template <int AXIS, int N>
__device__ __forceinline__ void add_taps(Number (&sums)[CHANNELS][N], const Input* x, const Number* w, Index x_at,
                                         Index w_at, const Window& window) {
  for (Index tap = window.first[AXIS]; tap < window.last[AXIS]; ++tap) {
    const Index x_tap = x_at + tap * window.x_step[AXIS], w_tap = w_at + tap * window.w_step[AXIS];
    if constexpr (AXIS + 1 < RANK) {
      add_taps<AXIS + 1>(sums, x, w, x_tap, w_tap, window);
    } else {
      Number values[N];
      for (int n = 0; n < N; ++n) values[n] = Number(x[x_tap + n * window.x_sample]);
      for (int o = 0; o < CHANNELS; ++o) {
        const Number weight = w[w_tap + window.w_channel[o]];
        for (int n = 0; n < N; ++n) add_product(sums[o][n], weight, values[n]);
      }
    }
  }
}

// A bias of 0 is none. y lies where the caller says: its first element, and the steps along its axes.
extern "C" __global__ void direct_forward(const Input* __restrict__ x, const Number* __restrict__ w,
                                          const Number* __restrict__ bias, Output* __restrict__ y, const Index samples,
                                          const Index groups, const Index outputs, const Index inputs,
                                          const Index y_first, const Index y_sample, const Index y_channel,
                                          Y_STEP_PARAMETERS, AXIS_PARAMETERS) {
  const Axes axes = {AXIS_VALUES};
  const Index y_step[RANK] = Y_STEP_VALUES;
  const Steps x_steps(axes.size), w_steps(axes.kernel);

  // The thread's number has the digits (samples, group, output channels, *position), the last one changes fastest.
  Index rest = this_thread(), x_at = 0, y_at = y_first;
  Window window;
  for (int axis = RANK - 1; axis >= 0; --axis) {
    const Index place = take(rest, axes.out[axis]), dilation = axes.dilation[axis];
    const Index at = place * axes.stride[axis] - axes.lo[axis];  // where tap 0 is
    window.first[axis] = at < 0 ? how_many(-at, dilation) : 0;
    window.last[axis] = smaller(how_many(axes.size[axis] - at, dilation), axes.kernel[axis]);
    window.x_step[axis] = dilation * x_steps.along[axis];
    window.w_step[axis] = w_steps.along[axis];
    x_at += at * x_steps.along[axis];
    y_at += place * y_step[axis];
  }
  const Index o_first = take(rest, how_many(outputs, CHANNELS)) * CHANNELS;
  const Index group = take(rest, groups), sample = rest * SAMPLES, channel = group * outputs + o_first;

  window.x_sample = groups * inputs * x_steps.all;
  for (int o = 0; o < CHANNELS; ++o)  // those after the last channel repeat it, and are not written
    window.w_channel[o] = smaller(o, outputs - 1 - o_first) * inputs * w_steps.all;

  const auto write = [&](auto some, const Index n_first) {
    constexpr int N = decltype(some)::count;
    Number sums[CHANNELS][N] = {};
    for (Index c = 0; c < inputs; ++c)
      add_taps<0>(sums, x, w, x_at + n_first * window.x_sample + (group * inputs + c) * x_steps.all,
                  (channel * inputs + c) * w_steps.all, window);
    for (int o = 0; o < CHANNELS; ++o) {
      if (o_first + o >= outputs) break;
      for (int n = 0; n < N; ++n) {
        if (bias) sums[o][n] = sums[o][n] + bias[channel + o];
        y[y_at + (n_first + n) * y_sample + (channel + o) * y_channel] = Output(sums[o][n]);
      }
    }
  };
  if (sample + SAMPLES <= samples) {
    write(Samples<SAMPLES>(), sample);
  } else {  // the last few; threads beyond these have none
    for (Index n = sample; n < samples; ++n) write(Samples<1>(), n);
  }
}

// ---- dw: a thread sums over a slice of the samples and positions, for a run of taps and up to CHANNELS channels ----

// The partial sums lie as (g, o, c, *kernel, slice); the caller adds those of all slices.
extern "C" __global__ void direct_weight_grad(const Output* __restrict__ dy, const Input* __restrict__ x,
                                              Number* __restrict__ partial_sums, const Index samples,
                                              const Index groups, const Index outputs, const Index inputs,
                                              const Index sample_slices, const Index position_slices,
                                              AXIS_PARAMETERS) {
  const Axes axes = {AXIS_VALUES};
  const Steps x_steps(axes.size), y_steps(axes.out), w_steps(axes.kernel);
  const int row = RANK - 1;  // the axis that runs of taps go along: a row is cut into runs of about the same length
  const Index runs = how_many(axes.kernel[row], TAPS), length = how_many(axes.kernel[row], runs);

  // The thread's number has the digits (group, output channels, input channel, *rows of taps, run, slice).
  Index rest = this_thread();
  const Index position_slice = take(rest, position_slices), sample_slice = take(rest, sample_slices);
  Index tap[RANK];  // the first of the run
  tap[row] = take(rest, runs) * length;
  for (int axis = row - 1; axis >= 0; --axis) tap[axis] = take(rest, axes.kernel[axis]);
  const Index c = take(rest, inputs), o_first = take(rest, how_many(outputs, CHANNELS)) * CHANNELS, group = rest;
  if (group >= groups) return;
  const Index taps = smaller(length, axes.kernel[row] - tap[row]), channel = group * outputs + o_first;

  Index y_channel[CHANNELS];  // those after the last channel repeat it, and are not written
  for (int o = 0; o < CHANNELS; ++o) y_channel[o] = (channel + smaller(o, outputs - 1 - o_first)) * y_steps.all;
  const Index x_channel = (group * inputs + c) * x_steps.all;
  const Index x_sample = groups * inputs * x_steps.all, y_sample = groups * outputs * y_steps.all;

  Number sums[CHANNELS][TAPS] = {};
  for (Index position = position_slice; position < y_steps.all; position += position_slices) {
    Index left = position, x_at = x_channel, at[RANK];  // where the first tap of the run is
    bool row_is_inside = true;
    for (int axis = row; axis >= 0; --axis) {
      at[axis] = take(left, axes.out[axis]) * axes.stride[axis] - axes.lo[axis] + tap[axis] * axes.dilation[axis];
      x_at += at[axis] * x_steps.along[axis];
      if (axis != row) row_is_inside = row_is_inside && at[axis] >= 0 && at[axis] < axes.size[axis];
    }
    bool inside[TAPS];
    for (int t = 0; t < TAPS; ++t) {
      const Index place = at[row] + t * axes.dilation[row];
      inside[t] = row_is_inside && t < taps && place >= 0 && place < axes.size[row];
    }
    for (Index n = sample_slice; n < samples; n += sample_slices) {
      Number values[TAPS];
      for (int t = 0; t < TAPS; ++t)
        if (inside[t]) values[t] = Number(x[x_at + n * x_sample + t * axes.dilation[row]]);
      for (int o = 0; o < CHANNELS; ++o) {
        const Number gradient = Number(dy[y_channel[o] + n * y_sample + position]);
        for (int t = 0; t < TAPS; ++t)
          if (inside[t]) add_product(sums[o][t], gradient, values[t]);
      }
    }
  }

  Index w_at = c * w_steps.all;
  for (int axis = 0; axis < RANK; ++axis) w_at += tap[axis] * w_steps.along[axis];
  const Index slices = sample_slices * position_slices, slice = sample_slice * position_slices + position_slice;
  for (int o = 0; o < CHANNELS; ++o)
    for (int t = 0; t < TAPS; ++t)
      if (o_first + o < outputs && t < taps)
        partial_sums[((channel + o) * inputs * w_steps.all + w_at + t) * slices + slice] = sums[o][t];
}
