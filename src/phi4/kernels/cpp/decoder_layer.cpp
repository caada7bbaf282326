// The steps of a decoder layer, each by the kernel that Python would call for it: the same bits, without the way back.

#include "decoder_layer.h"

namespace phi4 {
namespace {

// One layer at work: all rows are without gaps but those that come in.
struct LayerRun {
    const LayerKernels& kernels;
    const DecoderLayer& own;
    int threads;

    int64_t value_bytes() const { return own.bf16 ? 2 : 4; }

    int64_t bytes_of_rows(int64_t width) const { return own.tokens * width * value_bytes(); }

    void normalise(const void* hidden, int64_t stride, const void* weight, void* results) const {
        kernels.rms_norm({hidden, results, own.tokens, hidden_size(), stride, own.bf16}, weight, own.eps, threads);
    }

    void multiply(const char* rows, int64_t inputs, const LayerLinear& linear, char* results) const {
        if (linear.is_quantised()) {
            const RoundedRows rounded(own.tokens, inputs / GROUP_INPUTS);
            multiply_adapted(
                kernels.products, {rows, inputs, own.bf16}, rounded.rows, linear.quantised, linear.quantised_added, results,
                threads);
        } else {
            multiply_full(rows, own.tokens, inputs, linear.full, results, false);
        }
        for (const FullLowRank& lora : linear.full_added) {
            const int64_t count = lora.stop - lora.start, rank = lora.down.outputs;
            const Room low(count * rank * value_bytes());
            multiply_full(rows + lora.start * inputs * value_bytes(), count, inputs, lora.down, low.get(), false);
            kernels.scale(low.get(), count * rank, lora.scale, own.bf16);
            multiply_full(
                low.get(), count, rank, lora.up, results + lora.start * linear.outputs() * value_bytes(), true);
        }
    }

    void multiply_full(
        const char* rows, int64_t count, int64_t inputs, const FullMatrix& matrix, char* results, bool add) const {
        kernels.multiply(
            {rows, matrix.values, results, inputs, matrix.outputs, count, matrix.outputs, inputs, add, own.bf16}, threads);
    }

    void add(const void* hidden, int64_t stride, const void* more) const {
        kernels.add({hidden, own.results, own.tokens, hidden_size(), stride, own.bf16}, more, threads);
    }

    int64_t hidden_size() const { return own.o.outputs(); }
};

void add_attention(const LayerRun& run, const Conversations& conversations) {
    const DecoderLayer& own = run.own;
    const auto [heads, kv_heads, head_dim] = own.sizes;
    const int64_t hidden = run.hidden_size(), attended = heads * head_dim, fused = attended + 2 * kv_heads * head_dim;
    const Room rows(run.bytes_of_rows(hidden > attended ? hidden : attended)), projected(run.bytes_of_rows(fused));
    run.normalise(own.hidden, own.hidden_stride, own.attention_norm, rows.get());
    run.multiply(rows.get(), hidden, own.qkv, projected.get());
    run.kernels.rotate(
        {projected.get(), own.cos, own.sin, own.tokens, fused, heads + kv_heads, head_dim, own.half, own.bf16}, run.threads);
    const char* keys = projected.get() + attended * run.value_bytes();
    const NewHeads news{projected.get(), keys, keys + kv_heads * head_dim * run.value_bytes(), fused, fused, fused};
    store_and_attend(run.kernels, conversations, news, own.cache, own.sizes, own.bf16, rows.get(), run.threads);
    const Room results(run.bytes_of_rows(hidden));
    run.multiply(rows.get(), attended, own.o, results.get());
    run.add(own.hidden, own.hidden_stride, results.get());
}

void add_mlp(const LayerRun& run) {
    const DecoderLayer& own = run.own;
    const int64_t hidden = run.hidden_size(), inner = own.gate_up.outputs() / 2;
    const Room rows(run.bytes_of_rows(hidden)), both(run.bytes_of_rows(2 * inner)), gated(run.bytes_of_rows(inner));
    run.normalise(own.results, hidden, own.mlp_norm, rows.get());
    run.multiply(rows.get(), hidden, own.gate_up, both.get());
    run.kernels.swiglu({both.get(), gated.get(), own.tokens, inner, 2 * inner, own.bf16}, run.threads);
    run.multiply(gated.get(), inner, own.down, rows.get());
    run.add(own.results, hidden, rows.get());
}

}  // namespace

void store_and_attend(
    const LayerKernels& kernels, const Conversations& conversations, const NewHeads& news, const CachedLayer& cache,
    const HeadSizes& sizes, bool bf16, void* outputs, int threads) {
    const auto [heads, kv_heads, head_dim] = sizes;
    const int64_t value_bytes = bf16 ? 2 : 4;
    conversations.write(
        kernels.round_head, static_cast<const char*>(news.keys), news.key_stride * value_bytes,
        static_cast<char*>(cache.keys), cache.key_scales, group_of_key(head_dim), cache.slots, kv_heads, head_dim, bf16);
    conversations.write(
        kernels.round_head, static_cast<const char*>(news.values), news.value_stride * value_bytes,
        static_cast<char*>(cache.values), cache.value_scales, head_dim, cache.slots, kv_heads, head_dim, bf16);
    const Layer layer{news.queries, cache.keys,  cache.values, cache.key_scales, cache.value_scales, outputs,
                      news.query_stride, cache.slots, heads, kv_heads, head_dim, bf16};
    const std::vector<Segment>& segments = conversations.segments();
    kernels.attend(layer, segments.data(), static_cast<int64_t>(segments.size()), threads);
}

void run_decoder_layer(
    const LayerKernels& kernels, const Conversations& conversations, const DecoderLayer& layer, int threads) {
    const LayerRun run{kernels, layer, threads};
    add_attention(run, conversations);
    add_mlp(run);
}

}  // namespace phi4
