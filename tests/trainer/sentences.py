"""Hand-written questions to a shop, by topic, in English and Chinese. Made up for these tests."""

from __future__ import annotations

_DELIVERY = """
Where is my parcel?
My parcel has not arrived yet
When will the parcel be delivered?
The delivery is two days late
Can I change the delivery address?
The courier left my parcel with a neighbour
How long does delivery take?
Do you deliver to Norway?
The courier did not ring the bell
Can I track my parcel?
The tracking number does not work
Is delivery free for large orders?
My parcel arrived damaged
I want the parcel delivered to my office
The courier says the address is wrong
Which courier do you use?
Delivery was promised for Monday
Can the delivery wait until next week?
Half of the parcel is missing
Tracking says delivered, but there is no parcel
我的快递到哪里了
快递怎么还没到
包裹什么时候送到
可以改收货地址吗
快递员没有按门铃
包裹到的时候已经破了
快递单号查不到
送货要几天
你们用哪家快递
包裹少了一半
快递放在邻居家了
什么时候发货
发货以后多久能送到
物流信息没有更新
包裹显示已签收，但是我没收到
"""
_PAYMENT = """
My card was charged twice
Can I pay by credit card?
The payment failed again
I need an invoice for my payment
When do I get my refund?
Please refund the second payment
Can I pay the invoice in May?
My bank refused the payment
How do I pay with a gift card?
The invoice shows the wrong amount
I was charged too much
Do you take payment by bank transfer?
The refund is not on my card
Send me the invoice again, please
Is it safe to pay with my card here?
I paid but the order says not paid
Can I get a refund to another card?
The price on the invoice is wrong
Why was my card refused?
Please charge my other card
为什么扣了两次款
可以用信用卡付款吗
付款又失败了
我要开发票
什么时候退款
请退还多扣的款
发票金额不对
银行拒绝了付款
退款还没到银行卡
可以用支付宝付款吗
发票抬头写错了
我已经付款但是显示未付款
多收的钱请退款
能分期付款吗
发票什么时候能开
"""
_ACCOUNT = """
I forgot my password
How do I reset my password?
I cannot log in to my account
Please delete my account
How can I change my email address?
My account is locked
The login page says wrong password
Can I have two accounts?
The password reset email does not come
I want to change my user name
Somebody else logged in to my account
How do I close my account?
My login works on the phone only
Can I log in with my old password?
The account shows the wrong name
Please change the email of my account
How do I make a new account?
I never got the login code
Is my password safe with you?
Turn on two-step login for my account
我忘记密码了
怎么重置密码
登录不了我的账号
请注销我的账号
怎么修改邮箱
账号被锁定了
登录时提示密码错误
可以注册两个账号吗
收不到验证码
想修改用户名
有人登录了我的账号
怎么注册新账号
手机号换了怎么登录
密码改不了
账号名字显示错误
"""

SENTENCES: list[tuple[str, str]] = [
    (line, topic)
    for topic, block in (("delivery", _DELIVERY), ("payment", _PAYMENT), ("account", _ACCOUNT))
    for line in block.strip().splitlines()
]
