"""One sentence for each quantity of a preference set: what it means for which algorithms.

p is the preference probability, Δ the margin of the log-ratios, ε the label smoothing of cDPO, λ the weights
of KTO.
"""

MEANING = {
    "bad_rows": (
        "`run` refuses a set with such rows unless it is told --on-bad-row skip: then no algorithm trains "
        "on them, and the record counts them."
    ),
    "odd_rows": ("These rows are used as they are, by every algorithm."),
    "repeated_rows": (
        "A row that stands n times weighs n times in the loss of every algorithm, and in its accuracy."
    ),
    "shared_completions": (
        "Whether a text that stands under many prompts is preferred can be learnt without reading the "
        "prompt, so that every algorithm can be right on these rows for the wrong reason."
    ),
    "equal_but_for_spaces": (
        "The sides differ in white space or Unicode form alone: a tokenizer may make the same ids of both, "
        "and what every algorithm learns from the rest is typography."
    ),
    "split_overlap": (
        "Held-out accuracy on prompts or completions that were trained on is partly memory, for every "
        "algorithm."
    ),
    "contradictory": (
        "Where both orders occur and p is the fraction of the majority, DPO stops at βΔ = logit(p) and IPO "
        "at Δ = (2p − 1)/(2τ), while KTO with equal weights goes on to probability 1 of the majority."
    ),
    "contradictory_labels": (
        "KTO with equal weights follows the majority of such labels to probability 1; NPO both unlearns and "
        "retains the same text."
    ),
    "ties": (
        "Hard labels leave rows with p_chosen = 1/2 out of training, but for algorithms that model ties; "
        "soft ones train on both orientations at 1/2. No accuracy counts them."
    ),
    "unanimous": (
        "With hard labels losses see the order alone: on a pair that no other row contradicts the margin "
        "of DPO grows without bound, that of cDPO stops at βΔ = logit(1 − ε) and that of IPO at "
        "Δ = 1/(2τ), so that on pairs that are not unanimous DPO becomes surer than the annotators were."
    ),
    "intransitive": (
        "No reward orders a cycle a > b > c > a, so that the Bradley–Terry model, which DPO, PPO, RLHF and "
        "RSO take for true, is wrong there; IPO does not need it."
    ),
    "length_bias": (
        "What preferring the longer completion scores, which an accuracy has to beat: DPO can get there by "
        "raising every token of long completions a little, since its log-ratios are sums; SimPO, ORPO and "
        "IPO take means per token."
    ),
    "length_bias_unpaired": (
        "How often a desirable completion is longer than an undesirable one, ½ where length says nothing: "
        "KTO and NPO take summed log-ratios, which grow with the length."
    ),
    "edit_distance": (
        "On pairs of small distance DPO tends to lower the chosen completion together with the rejected one "
        "(Pal et al. 2024), against which DPOP has its penalty and CPO and ORPO their likelihood term."
    ),
    "lengths": (
        "Time and memory follow the longest rows; summed log-probabilities (DPO, KTO, NPO, SLiC) give long "
        "completions larger gradients, means per token (IPO, SimPO, ORPO, SFT) do not; a row is a prompt "
        "and its longer completion."
    ),
    "truncated": (
        "These rows lose the left end of their prompt, or with --truncate completion the end of a "
        "completion, for every algorithm alike; with --truncate drop they are left out."
    ),
    "left_out": (
        "These rows cannot be used with this model, so no algorithm is trained or evaluated on them."
    ),
    "equal_ids": (
        "For this model both sides are the same ids (often two Unicode forms of one text): there is nothing "
        "to prefer, and no algorithm is trained on such pairs."
    ),
    "boundary_merges": (
        "One token spans the end of the prompt and the start of the completion and is scored as the "
        "completion's, by every algorithm; when the model writes, it starts behind the whole prompt and "
        "never meets that token there."
    ),
    "template": (
        "Every algorithm is trained on what the template makes of the messages; another template is another "
        "data set."
    ),
    "end_token": (
        "The end token is scored with the completion; without one no algorithm teaches the model where to "
        "stop, and samples run to the length limit."
    ),
    "ches": (
        "The higher a pair, the more a loss of the margin alone (DPO, IPO, SLiC) tends to lower its chosen "
        "completion as well (likelihood displacement, Razin et al. 2024); compare pairs of one model, not "
        "values of two models."
    ),
    "ches_normalised": (
        "The same with means over tokens in place of sums, so that length does not decide the order; the "
        "paper's remedy for DPO is to train without the pairs that are highest here."
    ),
    "balance": (
        "With n desirable and m undesirable rows, KTO's λ_D·n/(λ_U·m) should be between 1 and 4/3 "
        "(Ethayarajh et al. 2024); algorithms on pairs cannot use these rows."
    ),
    "prompts_with_both": (
        "Only where one prompt has desirable and undesirable completions does KTO compare answers; "
        "elsewhere the label may follow from the prompt alone."
    ),
}
