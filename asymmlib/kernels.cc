// The CPU kernels behind asymmlib.fast: one convolution, its batch norm and its activation in one call.
// Tensors are float32, contiguous, [N, C, H, W]. Known are depthwise convolutions (1x1, 3x3, 5x5, stride 1 or 2) and dense
// ones (1x1, or any odd side where the input needs no gradient), all with padding K / 2. A depthwise one may read a
// second input, `side`, as `copies` times side, then x, then `copies` times side, as if they had been concatenated.
// No function keeps state. All loops are split statically and every sum has a fixed order: equal input and equal thread
// count give equal bits. (A dynamic schedule would do more harm: Paddle ships an old libiomp5, which hands out wrong
// iterations to code compiled for GCC's libgomp.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>
#include <omp.h>
using Int = int64_t;
extern "C" int dnnl_sgemm(char trans_a, char trans_b, Int m, Int n, Int k, float alpha, const float* a, Int lda,
                          const float* b, Int ldb, float beta, float* c, Int ldc);

namespace {
enum Activation : Int { NONE, RELU, RELU6, HARDSWISH };
enum Norm : Int { PLAIN, RUNNING, BATCH };  // no batch norm (bias at most), by running or by batch statistics

// The two structs that fast.py fills, field by field in this order.
struct Layer {
  Int N, C, H, W, side, copies, O, K, S, activation, norm, depthwise;
  Int oh() const { return (H - 1) / S + 1; }  // K is odd and the padding K / 2
  Int ow() const { return (W - 1) / S + 1; }
  Int area() const { return oh() * ow(); }
};
struct Tensors {
  const float *x, *side_x, *w, *gamma, *beta;        // gamma and beta may be missing; beta alone is a bias
  float *running_mean, *running_var, *mean, *scale;  // scale: 1 / sqrt(variance + eps)
  float *y, *z;                                      // convolution's output, and the layer's; may be the same
  float *gz, *gx, *gside, *gw, *ggamma, *gbeta;       // gradients; all but gz may be missing
};
struct Job : Layer, Tensors { double eps, momentum; };
Int divide_up(Int a, Int b) { return (a + b - 1) / b; }

// batch norm and activation -------------------------------------------------------------------------------------
inline float clip(float v, float low, float high) { return std::min(std::max(v, low), high); }

// Batch norm of one channel as k * y + o, and its activation: hard-swish, or clipping to low..high.
struct Channel {
  float k, o, mean, from_sum = 0, from_dot = 0, low, high;  // from_...: what batch statistics add to the gradient
  bool swish;
  Channel(const Job& j, Int c) : mean(j.mean[c]), swish(j.activation == HARDSWISH) {
    k = j.scale[c] * (j.gamma ? j.gamma[c] : 1), o = (j.beta ? j.beta[c] : 0) - mean * k;
    low = j.activation == NONE ? -INFINITY : 0, high = j.activation == RELU6 ? 6 : INFINITY;
  }
  float activate(bool swish, float v) const { return swish ? v * clip(v + 3, 0, 6) * (1 / 6.f) : clip(v, low, high); }
  float slope(bool swish, float v) const {
    return swish ? (v <= -3 ? 0.f : v >= 3 ? 1.f : (2 * v + 3) * (1 / 6.f)) : v > low && v < high ? 1.f : 0.f;
  }
  // Calls f with `swish` as a constant of the compiler's.
  template <class F> void constant(F f) const { swish ? f(std::true_type()) : f(std::false_type()); }
};
// z = act(bn(y)) for n pixels of one channel; y and z may be the same.
void apply(const Channel& channel, const float* y, float* z, Int n) {
  channel.constant([=, c = channel](auto swish) {
#pragma omp simd
    for (Int i = 0; i < n; i++) z[i] = c.activate(swish, c.k * y[i] + c.o);
  });
}
// Gradient of y for n pixels of one channel from index `at` on.
void gradient(const Job& j, const Channel& channel, Int at, Int n, float* gy) {
  channel.constant([=, c = channel, y = j.y + at, gz = j.gz + at](auto swish) {
#pragma omp simd
    for (Int i = 0; i < n; i++)
      gy[i] = c.k * (gz[i] * c.slope(swish, c.k * y[i] + c.o) - c.from_sum - (y[i] - c.mean) * c.from_dot);
  });
}
// First half of batch norm's gradient: gamma's and beta's, and what the second half needs of them.
Channel channel_gradient(const Job& j, Int c) {
  Channel channel(j, c);
  double total = 0, dot = 0;
  const Int area = j.area();
  for (Int at = c * area; at < j.N * j.O * area; at += j.O * area)
    channel.constant([=, c = channel, y = j.y + at, gz = j.gz + at, &total, &dot](auto swish) {
      float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
      for (Int i = 0; i < area; i++) {
        const float g = gz[i] * c.slope(swish, c.k * y[i] + c.o);
        a += g, b += g * (y[i] - c.mean);
      }
      total += a, dot += b;
    });
  if (j.gbeta) j.gbeta[c] = total;
  if (j.ggamma) j.ggamma[c] = dot * j.scale[c];
  if (j.norm == BATCH)
    channel.from_sum = total / (j.N * area), channel.from_dot = dot / (j.N * area) * j.scale[c] * j.scale[c];
  return channel;
}

// Count, sum and sum of squares: in double, out of blocks around whose mean float loses no digits.
struct Sums {
  double n = 0, total = 0, squares = 0;
  void add(const Sums& other) { n += other.n, total += other.total, squares += other.squares; }
  void add(const float* p, Int length) {
    for (const float* end = p + length; p < end; p += 1024) {
      const Int count = std::min<Int>(1024, end - p);
      float sum = 0, deviations = 0;
#pragma omp simd reduction(+ : sum)
      for (Int i = 0; i < count; i++) sum += p[i];
      const float m = sum / count;
#pragma omp simd reduction(+ : deviations)
      for (Int i = 0; i < count; i++) deviations += (p[i] - m) * (p[i] - m);
      add({(double)count, sum, deviations + 2. * m * sum - (double)count * m * m});
    }
  }
};
// What channel c is normalised by; batch statistics update the running ones as Paddle does (biased variance).
void statistics(const Job& j, Int c, const Sums& s = Sums()) {
  double mean = j.norm == RUNNING ? j.running_mean[c] : 0, variance = j.norm == RUNNING ? j.running_var[c] : 0;
  if (j.norm == BATCH) {
    mean = s.total / s.n, variance = std::max(0., s.squares / s.n - mean * mean);
    j.running_mean[c] = j.momentum * j.running_mean[c] + (1 - j.momentum) * mean;
    j.running_var[c] = j.momentum * j.running_var[c] + (1 - j.momentum) * variance;
  }
  j.mean[c] = mean, j.scale[c] = j.norm == PLAIN ? 1 : 1 / std::sqrt(variance + j.eps);
}

// depthwise convolution -----------------------------------------------------------------------------------------
constexpr int LANES = __BIGGEST_ALIGNMENT__ / sizeof(float);  // as many as the widest registers hold
typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
inline Vec& vec(const float* p) { return *(Vec*)p; }

// A plane is kept zero-padded and split into S x S phases (rows and columns by their remainder), so that every tap
// of the kernel is one constant offset into a flat array, whatever the stride. Taps of one phase lead back from the
// output's gradient to that phase of the input's.
struct Plane {
  Int H, W, K, S, pad, OH, OW, reach, PW, PH, phase, padded, bordered;
  Int taps[25], back[4][25], from[4][25], count[4] = {0, 0, 0, 0};
  explicit Plane(const Job& j) : H(j.H), W(j.W), K(j.K), S(j.S), pad(j.K / 2), OH(j.oh()), OW(j.ow()) {
    reach = (K - 1) / S;  // how far the taps go within a phase
    PW = OW + reach, PH = OH + reach, phase = PW * PH;
    padded = S * S * phase + 4 * LANES + PW;  // vectors may read and write past the end
    bordered = (OH + 2 * reach) * PW + 4 * LANES + PW;  // the output's gradient
    for (Int t = 0; t < K * K; t++) {
      const Int ky = t / K, kx = t % K, f = ky % S * S + kx % S, inner = ky / S * PW + kx / S;
      taps[t] = f * phase + inner, back[f][count[f]] = -inner, from[f][count[f]++] = t;
    }
  }
  // Calls f(pixel, place, n): n pixels, S apart, from `pixel` on lie side by side from `place` on in the phases.
  template <class F> void each_run(F f) const {
    for (Int i = 0; i < S * S; i++) {
      const Int top = (i / S + pad) % S, left = (i % S + pad) % S;  // this phase's first pixel
      const Int column = (left + pad) / S, n = std::min(divide_up(W - left, S), PW - column);
      for (Int y = top, row = (top + pad) / S; y < H && row < PH; y += S, row++)
        f(y * W + left, i * phase + row * PW + column, n);  // a last row may be seen by no output
    }
  }
  void split(const float* x, float* to) const {  // the borders of `to` stay zero
    each_run([=, S = S](Int pixel, Int place, Int n) {
      if (S == 1) for (Int k = 0; k < n; k++) to[place + k] = x[pixel + k];
      else for (Int k = 0; k < n; k++) to[place + k] = x[pixel + 2 * k];
    });
  }
  void join(const float* from, float* x, bool add) const {
    if (!add) std::fill_n(x, H * W, 0.f);
    each_run([=, S = S](Int pixel, Int place, Int n) {
      if (S == 1) for (Int k = 0; k < n; k++) x[pixel + k] += from[place + k];
      else for (Int k = 0; k < n; k++) x[pixel + 2 * k] += from[place + k];
    });
  }
};

template <int T, int U> inline void correlate_at(const float* s, const Int* taps, const float* w, float* d) {
  Vec a[U];
  for (int u = 0; u < U; u++) a[u] = w[0] * vec(s + taps[0] + u * LANES);
#pragma GCC unroll 25
  for (int t = 1; t < T; t++)
    for (int u = 0; u < U; u++) a[u] += w[t] * vec(s + taps[t] + u * LANES);
  for (int u = 0; u < U; u++) vec(d + u * LANES) = a[u];
}
// d[i] = sum over t of w[t] * s[i + taps[t]] for i < n, where n >= LANES; the last vector overlaps the one before.
template <int T> void correlate_run(const float* s, const Int* taps, const float* w, float* d, Int n) {
  Int i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) correlate_at<T, 4>(s + i, taps, w, d + i);
  for (; i + LANES <= n; i += LANES) correlate_at<T, 1>(s + i, taps, w, d + i);
  if (i < n) correlate_at<T, 1>(s + n - LANES, taps, w, d + n - LANES);
}
// The same for rows: those of s lie `ss` apart, those of d `ds`. Narrow rows are done as one run with the gaps
// between them, into `room`, and copied from there.
template <int T> void correlate_rows(const float* s, Int ss, const Int* taps, const float* w, float* d, Int ds,
                                     Int rows, Int columns, float* room) {
  if (columns < LANES) correlate_run<T>(s, taps, w, room, std::max<Int>(rows * ss, LANES));
  for (Int r = 0; r < rows; r++)
    if (columns < LANES) std::copy_n(room + r * ss, columns, d + r * ds);
    else correlate_run<T>(s + r * ss, taps, w, d + r * ds, columns);
}
constexpr std::integer_sequence<int, 1, 2, 4, 6, 9, 25> TAPS;  // 3 x 3 and 5 x 5, or those of one phase
template <int... T, class... Rest> void correlate(std::integer_sequence<int, T...>, Int count, Rest... rest) {
  ((count == T ? correlate_rows<T>(rest...) : void()), ...);
}
// acc[t] += sum over i of g[i] * x[i + taps[t]]
template <int T> void dots(const float* g, const float* x, const Int* taps, Int n, Vec* acc) {
  Vec a[T];
  std::copy_n(acc, T, a);
  for (Int i = 0; i < n; i += LANES)
#pragma GCC unroll 25
    for (int t = 0; t < T; t++) a[t] += vec(g + i) * vec(x + i + taps[t]);
  std::copy_n(a, T, acc);
}

// The plane that output channel c of picture n reads, of the concatenation side..., x, side... (or its gradient).
template <class T> T* source(const Job& j, T* side, T* x, Int n, Int c) {
  const Int before = j.copies * j.side, area = j.H * j.W;
  if (c >= before && c < before + j.C) return x ? x + (n * j.C + c - before) * area : nullptr;
  return side ? side + (n * j.side + (c < before ? c : c - before - j.C) % j.side) * area : nullptr;
}

void depthwise_forward(const Job& j) {
  const Plane p(j);
  const Int T = j.K * j.K, area = j.area();
#pragma omp parallel
  {
    std::vector<float> padded(p.padded), room(p.padded);
#pragma omp for schedule(static)
    for (Int c = 0; c < j.O; c++) {
      Sums sums;
      for (Int n = 0; n < j.N; n++) {
        float* const y = j.y + (n * j.O + c) * area;
        p.split(source(j, j.side_x, j.x, n, c), padded.data());
        correlate(TAPS, T, padded.data(), p.PW, p.taps, j.w + c * T, y, p.OW, p.OH, p.OW, room.data());
        if (j.norm == BATCH) sums.add(y, area);
      }
      statistics(j, c, sums);
      for (Int at = c * area; (j.norm || j.beta) && at < j.N * j.O * area; at += j.O * area)
        apply({j, c}, j.y + at, j.z + at, area);
    }
  }
}

void depthwise_backward(const Job& j) {
  const Plane p(j);
  const Int T = j.K * j.K, area = j.area();
#pragma omp parallel
  {
    std::vector<float> padded(p.padded), bordered(p.bordered), parts(p.padded), room(p.padded);
    float* const inside = &bordered[p.reach * p.PW + p.reach];  // the first pixel within the zero border
    const auto input_gradient = [&](const float* kernel, float* gx, bool add) {
      for (Int f = 0; f < p.S * p.S; f++) {
        float w[25];
        for (Int i = 0; i < p.count[f]; i++) w[i] = kernel[p.from[f][i]];
        if (p.S == 1 && !add)  // straight into place
          return correlate(TAPS, T, inside + p.pad * (p.PW + 1), p.PW, p.back[f], w, gx, p.W, p.H, p.W, room.data());
        correlate(TAPS, p.count[f], inside, p.PW, p.back[f], w, &parts[f * p.phase], p.PW, p.PH, p.PW, room.data());
      }
      p.join(parts.data(), gx, add);
    };
    // Gradients of output channel c, whose input plane's gradient other channels may have begun (`add`).
    const auto channel_backward = [&](Int c, bool add) {
      const Channel channel = channel_gradient(j, c);
      Vec acc[25] = {};
      for (Int n = 0; n < j.N; n++) {
        for (Int r = 0, at = (n * j.O + c) * area; r < p.OH; r++, at += p.OW)
          gradient(j, channel, at, p.OW, inside + r * p.PW);
        if (j.gw) {
          p.split(source(j, j.side_x, j.x, n, c), padded.data());
          (T == 1 ? dots<1> : T == 9 ? dots<9> : dots<25>)(inside, padded.data(), p.taps, p.OH * p.PW, acc);
        }
        if (float* gx = source(j, j.gside, j.gx, n, c)) input_gradient(j.w + c * T, gx, add);
      }
      for (Int t = 0; j.gw && t < T; t++)
        j.gw[c * T + t] = std::accumulate((float*)&acc[t], (float*)&acc[t + 1], 0.f);
    };
#pragma omp for schedule(static, 1)  // one by one: the planes of side come first and take longer
    for (Int i = 0; i < j.side + j.C; i++) {
      if (i >= j.side) channel_backward((j.copies - 1) * j.side + i, false);
      for (Int k = 0; i < j.side && k < 2 * j.copies; k++)
        channel_backward(k * j.side + i + (k < j.copies ? 0 : j.C), k > 0);
    }
  }
}

// dense convolution: pointwise and stem -------------------------------------------------------------------------
// The columns (pixels) are cut into panels that stay in cache: some whole pictures, or a piece of each of one.
struct Matrix { float* data; Int stride; };
struct Panel {
  Int n, pictures, first, columns;  // columns of each picture
  Int width() const { return pictures * columns; }
  // Calls f(channel, place in the tensor [N, channels, area], place in the panel's matrix [channels, width]).
  template <class F> void each_row(Int channels, Int area, F f) const {
    for (Int i = 0; i < pictures; i++)
      for (Int c = 0; c < channels; c++) f(c, ((n + i) * channels + c) * area + first, c * width() + i * columns);
  }
  // Its matrix: the tensor's own memory where one picture is enough, else `room`, from which `store` brings it back.
  Matrix view(const float* tensor, Int channels, Int area, float* room) const {
    return pictures > 1 ? Matrix{room, width()} : Matrix{(float*)tensor + n * channels * area + first, area};
  }
  void store(const float* room, float* tensor, Int channels, Int area) const {
    if (pictures > 1)
      each_row(channels, area, [&](Int, Int at, Int from) { std::copy_n(room + from, columns, tensor + at); });
  }
};
struct Panels {
  const Job& j;
  const bool pointwise = j.K == 1 && j.S == 1;
  const Int area = j.area(), I = j.C * j.K * j.K, O = j.O;
  Int group, piece, pieces, count;
  explicit Panels(const Job& j) : j(j) {
    const Int unit = pointwise ? 1 : j.ow();
    const Int even = divide_up(j.N * area, omp_get_max_threads());  // columns, so that every thread has some
    const Int fitting = std::clamp<Int>((1 << 18) / (I + O), 256, 2048);
    const Int wanted = std::max(unit, std::min(fitting, std::max<Int>(even, 16)));
    group = divide_up(j.N, divide_up(j.N, pointwise ? std::clamp<Int>(wanted / area, 1, j.N) : 1));
    piece = divide_up(area / unit, divide_up(area, wanted)) * unit;
    pieces = divide_up(area, piece), count = divide_up(j.N, group) * pieces;
  }
  Int width() const { return group * piece; }
  Panel operator[](Int i) const {
    const Int n = i / pieces * group, first = i % pieces * piece;
    return {n, std::min(group, j.N - n), first, std::min(piece, area - first)};
  }
  // A panel's input as a matrix [I, width]: every pixel under every tap (im2col).
  Matrix input(const Panel& p, float* room) const {
    if (pointwise && p.pictures == 1) return p.view(j.x, I, area, room);
    if (pointwise) p.each_row(I, area, [&](Int, Int at, Int to) { std::copy_n(j.x + at, p.columns, room + to); });
    float* d = room;
    for (Int i = 0, ow = j.ow(); !pointwise && i < I; i++) {
      const Int ky = i / j.K % j.K - j.K / 2, kx = i % j.K - j.K / 2;
      const Int low = std::min(divide_up(std::max<Int>(-kx, 0), j.S), ow);
      const Int high = std::clamp(divide_up(std::max<Int>(j.W - kx, 0), j.S), low, ow);
      for (Int r = p.first / ow; r < (p.first + p.columns) / ow; r++, d += ow) {
        const Int y = r * j.S + ky;
        const float* s = j.x + ((p.n * j.C + i / (j.K * j.K)) * j.H + y) * j.W + kx;
        std::fill_n(d, ow, 0.f);
        for (Int c = low; c < high && y >= 0 && y < j.H; c++) d[c] = s[c * j.S];
      }
    }
    return {room, p.width()};
  }
};

void dense_forward(const Job& j) {
  const Panels panels(j);
  const Int area = panels.area, I = panels.I, O = j.O;
  std::vector<Sums> sums(omp_get_max_threads() * O);  // a row for each thread
  for (Int c = 0; j.norm != BATCH && c < O; c++) statistics(j, c);
#pragma omp parallel
  {
    std::vector<float> x_room(I * panels.width()), y_room(O * panels.width());
#pragma omp for schedule(static)
    for (Int i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const Matrix x = panels.input(p, x_room.data()), y = p.view(j.y, O, area, y_room.data());
      dnnl_sgemm('N', 'N', O, p.width(), I, 1, j.w, I, x.data, x.stride, 0, y.data, y.stride);
      for (Int c = 0; j.norm == BATCH && c < O; c++)
        sums[omp_get_thread_num() * O + c].add(y.data + c * y.stride, p.width());
      p.store(y_room.data(), j.y, O, area);
      if (j.norm != BATCH)
        p.each_row(O, area, [&](Int c, Int at, Int) { apply({j, c}, j.y + at, j.z + at, p.columns); });
    }
  }
  if (j.norm != BATCH) return;
  for (Int i = O; i < (Int)sums.size(); i++) sums[i % O].add(sums[i]);
  for (Int c = 0; c < O; c++) statistics(j, c, sums[c]);
#pragma omp parallel for schedule(static)
  for (Int k = 0; k < j.N * O; k++) apply({j, k % O}, j.y + k * area, j.z + k * area, area);
}

void dense_backward(const Job& j) {
  const Panels panels(j);
  const Int area = panels.area, I = panels.I, O = j.O, threads = omp_get_max_threads();
  std::vector<Channel> channels(O, Channel(j, 0));
  std::vector<float> partial(j.gw ? threads * O * I : 0);  // a weight gradient for each thread
#pragma omp parallel
  {
    std::vector<float> x_room(I * panels.width()), g(O * panels.width());
#pragma omp for schedule(static)
    for (Int c = 0; c < O; c++) channels[c] = channel_gradient(j, c);
#pragma omp for schedule(static)
    for (Int i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const Int n = p.width();
      p.each_row(O, area, [&](Int c, Int at, Int to) { gradient(j, channels[c], at, p.columns, &g[to]); });
      if (j.gw) {
        const Matrix x = panels.input(p, x_room.data());
        dnnl_sgemm('N', 'T', O, I, n, 1, g.data(), n, x.data, x.stride, 1, &partial[omp_get_thread_num() * O * I], I);
      }
      if (j.gx) {
        const Matrix gx = p.view(j.gx, I, area, x_room.data());
        dnnl_sgemm('T', 'N', I, n, O, 1, j.w, I, g.data(), n, 0, gx.data, gx.stride);
        p.store(x_room.data(), j.gx, I, area);
      }
    }
#pragma omp for schedule(static)
    for (Int k = 0; k < (j.gw ? O * I : 0); k++) {
      j.gw[k] = 0;
      for (Int i = 0; i < threads; i++) j.gw[k] += partial[i * O * I + k];
    }
  }
}
}  // namespace: below is what fast.py calls
extern "C" void forward(const Layer* l, const Tensors* t, double eps, double momentum) {
  (l->depthwise ? depthwise_forward : dense_forward)({*l, *t, eps, momentum});
}
extern "C" void backward(const Layer* l, const Tensors* t) {
  (l->depthwise ? depthwise_backward : dense_backward)({*l, *t, 0, 0});
}
