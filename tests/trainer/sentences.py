"""Hand-written sentences about a product, glad or cross, in English and Chinese. Made up for these tests."""

from __future__ import annotations

_GLAD = """
I love this kettle, it boils in a minute
What a lovely lamp, the light is warm
Great value and it arrived early
The screen is bright and beautiful
My daughter loves the blue one
Works perfectly, I am very happy
Excellent quality, I would buy it again
The best headphones I have owned
So comfortable that I forget I wear them
Fast delivery and friendly service
A wonderful gift, thank you
It is quiet, quick and easy to clean
Really good battery, lasts two days
Lovely colour and a perfect fit
I am happy with this bag
Great sound for a small speaker
The chair is comfortable and looks great
Easy to set up, works great with my phone
Beautiful box, excellent chocolate
Perfect for small kitchens
The soup pot is excellent and heats fast
Love it, love it, love it
A great little camera with lovely pictures
Friendly people, quick answer, happy customer
Good shoes, comfortable from the first day
这个水壶很好用，烧水很快
非常喜欢，质量很好
快递很快，服务态度也好
颜色漂亮，女儿很喜欢
音质很好，很满意
物美价廉，下次还会买
做工精细，手感很好
屏幕清晰，非常满意
味道很好，家人都喜欢
包装漂亮，送礼很合适
电池耐用，用了两天还有电
很舒服的椅子，推荐购买
安装简单，效果很好
客服热情，回答很快
衣服合身，颜色很好看
比想象的好，很开心
声音很小，非常满意
值得推荐的好产品
鞋子舒服，质量不错
灯光温暖，我很喜欢
"""
_CROSS = """
The kettle broke after two days
Terrible lamp, it smells of burnt plastic
It arrived late and the box was open
The screen is dark and has a scratch
My daughter cried, the toy was broken
Does not work at all, I want my money back
Poor quality, I would never buy it again
The worst headphones I have owned
So painful that I cannot wear them
Slow delivery and rude service
A terrible gift, I am ashamed
It is loud, slow and hard to clean
Really bad battery, dead in an hour
Ugly colour and it does not fit
I am disappointed with this bag
Awful sound, it cracks and hums
The chair is painful and broke at once
Hard to set up, never works with my phone
Broken box, stale chocolate
Useless in small kitchens
The soup pot is awful and burnt my hand
Waste of money, do not buy
A bad little camera with dark pictures
Rude people, no answer, angry customer
Bad shoes, painful from the first day
这个水壶太差了，两天就坏了
非常失望，质量很差
快递太慢，服务态度恶劣
颜色难看，女儿不要
音质很差，很失望
又贵又差，再也不会买
做工粗糙，手感很差
屏幕有划痕，要求退货
味道难闻，没人要吃
包装破了，没法送人
电池不行，一个小时就没电
很难受的椅子，不推荐
安装麻烦，根本不能用
客服冷淡，没有人回答
衣服太小，颜色难看
比想象的差，很生气
声音太大，吵得睡不着
浪费钱的坏产品
鞋子磨脚，质量太差
灯光刺眼，我要退货
"""

SENTENCES: list[tuple[str, str]] = [
    (line, mood) for mood, block in (("glad", _GLAD), ("cross", _CROSS)) for line in block.strip().splitlines()
]
