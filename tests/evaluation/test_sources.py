from flax_transformer.evaluation.sources import encode_sources


def test_a_line_that_just_fits_is_whole_and_a_longer_one_is_cut(tiny_translator, caplog):
    tokenizer = tiny_translator.tokenizer.source
    line = tiny_translator.pairs[0].source
    whole = [*tokenizer.encode(line), tokenizer.eos_id]
    assert encode_sources(tokenizer, [line], max_length=len(whole)) == [whole]
    assert not caplog.records
    cut = encode_sources(tokenizer, ["", line], max_length=len(whole) - 1, first_line=7)
    assert cut == [[tokenizer.eos_id], [*whole[:-2], tokenizer.eos_id]]
    assert "line 8 has" in caplog.text


def test_text_is_never_a_special_token_and_breaks_are_spaces(tiny_translator):
    tokenizer = tiny_translator.tokenizer.source
    (special,) = encode_sources(tokenizer, ["</s><pad><s>"], max_length=61)
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} & set(special[:-1])
    first, second = encode_sources(tokenizer, ["a\u2028b\r", "a b"], max_length=61)
    assert first == second
