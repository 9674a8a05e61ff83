/* Conversions against all 65,536 halves, and rounding to nearest even against the definition. */
#include "mergegrid/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double half_value(unsigned half) {
  const int exponent = (int)(half >> 10 & 31), mantissa = (int)(half & 1023);
  const double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                           : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                          : ldexp(mantissa, -24);
  return half & 0x8000 ? -magnitude : magnitude;
}

static void every_half_converts_both_ways(void **state) {
  (void)state;
  static uint16_t halves[65536], back[65536];
  static float values[65536];
  for (unsigned i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
  for (size_t step = 1; step <= 65536; step = step == 1 ? 65536 : 65537) { /* one by one (scalar) and all (vector) */
    for (size_t i = 0; i < 65536; i += step) mg_to_f32(values + i, halves + i, MG_F16, step, 1);
    for (unsigned i = 0; i < 65536; i++) {
      const double expected = half_value(i);
      if (isnan(expected))
        assert_true(isnan(values[i]));
      else
        assert_true((double)values[i] == expected && !signbit(values[i]) == !signbit(expected));
    }
    for (size_t i = 0; i < 65536; i += step) mg_from_f32(back + i, values + i, MG_F16, step, 1);
    for (unsigned i = 0; i < 65536; i++)
      if (!isnan(values[i])) assert_int_equal(back[i], i);
  }
}

/* The nearest half of a value, by looking at all of them; ties to the even pattern. */
static unsigned nearest_half(float value) {
  unsigned best = 0;
  const double magnitude = fabs((double)value);
  if (magnitude >= 65520) return 0x7C00 | (value < 0 ? 0x8000 : 0);
  for (unsigned i = 0; i < 0x7C00; i++) {
    const double distance = fabs(half_value(i) - magnitude), least = fabs(half_value(best) - magnitude);
    if (distance < least || (distance == least && i % 2 == 0)) best = i;
  }
  return best | (value < 0 ? 0x8000 : 0);
}

static void rounding_is_to_nearest_even(void **state) {
  (void)state;
  const float samples[] = {0.1f,     -0.1f,    65504.f, 65519.9f, 65520.f,    1e9f,      5.96e-8f, 2.98e-8f,
                           2.99e-8f, 8.94e-8f, 6.1e-5f, 6.09e-5f, 1.00049f,   1.0005f,   1.00146f, 3.14159f,
                           -2049.f,  2051.f,   4098.f,  0x1p-25f, 0x1.8p-24f, 0x1.8p-25f};
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
    uint16_t one, eight[8];
    float copies[8];
    for (int k = 0; k < 8; k++) copies[k] = samples[i];
    mg_from_f32(&one, &samples[i], MG_F16, 1, 1);
    mg_from_f32(eight, copies, MG_F16, 8, 1);
    assert_int_equal(one, nearest_half(samples[i]));
    assert_int_equal(eight[3], one);
  }
  const struct {
    uint32_t in;
    uint16_t out;
  } bfloats[] = {{0x3F800000, 0x3F80}, {0x3F808000, 0x3F80}, {0x3F818000, 0x3F82}, {0x3F808001, 0x3F81},
                 {0x7F7FFFFF, 0x7F80}, {0xFF800000, 0xFF80}, {0x00000001, 0x0000}, {0x7F800001, 0x7FC0}};
  for (size_t i = 0; i < sizeof bfloats / sizeof *bfloats; i++) {
    float value;
    uint16_t out;
    memcpy(&value, &bfloats[i].in, 4);
    mg_from_f32(&out, &value, MG_BF16, 1, 1);
    assert_int_equal(out, bfloats[i].out);
  }
}

static void scales_are_powers_of_two_and_exact(void **state) {
  (void)state;
  const float values[] = {1e-6f, -3e-5f, 2.5e-4f};
  uint16_t halves[3];
  float back[3];
  mg_from_f32(halves, values, MG_F16, 3, 0x1p20f);
  mg_to_f32(back, halves, MG_F16, 3, 0x1p-20f);
  for (int i = 0; i < 3; i++) assert_true(fabsf(back[i] - values[i]) <= fabsf(values[i]) * 0x1p-11f);
}

static void differences_are_rounded_once(void **state) {
  (void)state;
  enum { N = 3000 };
  static double a64[N], b64[N];
  static float a32[N], b32[N], out[N];
  for (int i = 0; i < N; i++) {
    b64[i] = sin(i) * 0.1;
    a64[i] = b64[i] + cos(3 * i) * 1e-6;
    a32[i] = (float)a64[i];
    b32[i] = (float)b64[i];
  }
  mg_subtract_to_f32(out, a64, MG_F64, b64, MG_F64, N);
  for (int i = 0; i < N; i++) assert_true(out[i] == (float)(a64[i] - b64[i]));
  mg_subtract_to_f32(out, a32, MG_F32, b32, MG_F32, N);
  for (int i = 0; i < N; i++) assert_true(out[i] == (float)((double)a32[i] - (double)b32[i]));
  mg_subtract_to_f32(out, a32, MG_F32, b64, MG_F64, N);
  for (int i = 0; i < N; i++) assert_true(out[i] == (float)((double)a32[i] - b64[i]));
  static uint16_t halves[N];
  static float base[N];
  mg_from_f32(halves, b32, MG_BF16, N, 1);
  mg_to_f32(base, halves, MG_BF16, N, 1);
  mg_subtract_to_f32(out, a32, MG_F32, halves, MG_BF16, N);
  for (int i = 0; i < N; i++) assert_true(out[i] == a32[i] - base[i]);
  mg_subtract_to_f32(out, a32, MG_F32, NULL, MG_F32, N);
  assert_memory_equal(out, a32, sizeof out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_half_converts_both_ways), cmocka_unit_test(rounding_is_to_nearest_even),
      cmocka_unit_test(scales_are_powers_of_two_and_exact), cmocka_unit_test(differences_are_rounded_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
